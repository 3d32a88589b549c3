"""Runs a WebAssembly program with its arguments, as an emulator runs a foreign one.

    python -m bitnetc.wasi [-cpu wasmtime | node] PROGRAM [argument ...]

The engine is the wasmtime program, the Python package of that name, or Node.js: the first that is
found, unless -cpu names one. Standard streams are the program's; it sees the current folder.
"""

import importlib
import importlib.util
import os
import shutil
import sys
from typing import Any

# Node.js has WASI as a class; its warning that this is experimental is left out.
_NODE = """
const { WASI } = require("node:wasi");
const fs = require("node:fs");
const args = process.argv.slice(1);
const wasi = new WASI({ version: "preview1", args, env: {}, preopens: { ".": "." } });
WebAssembly.instantiate(fs.readFileSync(args[0]), wasi.getImportObject()).then(
  (made) => { process.exitCode = wasi.start(made.instance); },
  (error) => { console.error(String(error)); process.exitCode = 1; });
"""


def engines() -> list[str]:
    """Those that are installed, the preferred one first."""
    package = importlib.util.find_spec("wasmtime") is not None
    found = ["wasmtime"] if package or shutil.which("wasmtime") else []
    return found + (["node"] if shutil.which("node") else [])


def main(words: list[str]) -> int:
    """Runs words, an engine's name before the program or not. Returns the program's exit code."""
    wanted = None
    if words[:1] == ["-cpu"]:
        wanted, words = words[1], words[2:]
    engine = wanted or next(iter(engines()), None)
    if engine not in engines():
        print(f"{engine or 'wasmtime or node'} is not installed", file=sys.stderr)
        return 1
    if engine == "node":
        node = ["node", "--no-warnings", "-e", _NODE, "--", *words]
        os.execvp(node[0], node)
    if shutil.which("wasmtime"):
        os.execvp("wasmtime", ["wasmtime", "run", "--dir", ".", *words])
    return _wasmtime(words)


def _wasmtime(words: list[str]) -> int:
    """The program in the Python package's engine."""
    wasmtime: Any = importlib.import_module("wasmtime")
    engine = wasmtime.Engine()
    store, linker = wasmtime.Store(engine), wasmtime.Linker(engine)
    wasi = wasmtime.WasiConfig()
    wasi.argv = words
    wasi.inherit_stdin()
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    wasi.preopen_dir(".", ".")
    store.set_wasi(wasi)
    linker.define_wasi()
    instance = linker.instantiate(store, wasmtime.Module.from_file(engine, words[0]))
    try:
        instance.exports(store)["_start"](store)
    except wasmtime.ExitTrap as ended:
        return int(ended.code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
