"""Runs a WebAssembly program with its arguments, as an emulator runs a foreign one.

    python -m bitnetc.wasi [-cpu wasmtime | wasmtime,simd=off | node] PROGRAM [argument ...]

The engine is the wasmtime program, the Python package of that name, or Node.js: the first that is
found, unless -cpu names one. Standard streams are the program's; it sees the current folder. The
package's engine also plays one without SIMD.
"""

import importlib
import importlib.util
import os
import shutil
import sys
from typing import Any

# Node.js has WASI as a class; its warning that this is experimental is left out. V8's short way
# into that class misleads the garbage collector of Node.js 20 when a program's memory grows: the
# process dies with a signal after some megabytes.
_NODE = """
require("node:v8").setFlagsFromString("--no-turbo-fast-api-calls");
const { WASI } = require("node:wasi");
const fs = require("node:fs");
const args = process.argv.slice(1);
const wasi = new WASI({ version: "preview1", args, env: {}, preopens: { ".": "." } });
WebAssembly.instantiate(fs.readFileSync(args[0]), wasi.getImportObject()).then(
  (made) => { process.exitCode = wasi.start(made.instance); },
  (error) => { console.error(String(error)); process.exitCode = 1; });
"""


NO_SIMD = "wasmtime,simd=off"
WRONG_CPU = 3  # the exit code of bnc_main.c for a CPU that lacks something


def engines() -> list[str]:
    """Those that are installed, the preferred one first."""
    package = importlib.util.find_spec("wasmtime") is not None
    found = ["wasmtime"] if package or shutil.which("wasmtime") else []
    found += ["node"] if shutil.which("node") else []
    return found + ([NO_SIMD] if package else [])


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
    if shutil.which("wasmtime") and engine != NO_SIMD:
        os.execvp("wasmtime", ["wasmtime", "run", "--dir", ".", *words])
    return _wasmtime(words, engine != NO_SIMD)


def _wasmtime(words: list[str], simd: bool) -> int:
    """The program in the Python package's engine."""
    wasmtime: Any = importlib.import_module("wasmtime")
    config = wasmtime.Config()
    if not simd:
        config.wasm_relaxed_simd = config.wasm_simd = False
    engine = wasmtime.Engine(config)
    try:
        module = wasmtime.Module.from_file(engine, words[0])
    except wasmtime.WasmtimeError as error:
        if "SIMD support is not enabled" not in str(error):
            raise
        what = "compiled for wasm32-simd128, which needs SIMD; this WebAssembly engine has it off"
        print(f"{words[0]}: {what}", file=sys.stderr)
        return WRONG_CPU
    store, linker = wasmtime.Store(engine), wasmtime.Linker(engine)
    wasi = wasmtime.WasiConfig()
    wasi.argv = words
    wasi.inherit_stdin()
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    wasi.preopen_dir(".", ".")
    store.set_wasi(wasi)
    linker.define_wasi()
    instance = linker.instantiate(store, module)
    try:
        instance.exports(store)["_start"](store)
    except wasmtime.ExitTrap as ended:
        return int(ended.code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
