"""The functions of NAME.h: what they return, the text they deliver, the stack they take."""

import codecs
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import VARIANTS, write_checkpoint
from unavailable import Unavailable

from bitnetc.reference import Reference
from e2e.built import EXAMPLE, Built
from e2e.test_library import STRICT, cmake, run

HERE = Path(__file__).parent
PROMPT = "It is a truth universally acknowledged, that"
CODES = {
    "EROOM": -1, "ESCRATCH": -2, "ETEXT": -3, "ETOKEN": -4, "EFULL": -5, "EEMPTY": -6,
    "EARGUMENT": -7, "ECONTEXT": -8, "ETHREADS": -9, "EALIGN": -10, "EARENA": -11, "ESTART": -12,
    "EDATA": -13, "EABI": -14,
}  # fmt: skip


@pytest.fixture(scope="module")
def cc(unavailable: Unavailable) -> str:
    return shutil.which("cc") or unavailable("native", "no C compiler")


def compiled(cc: str, folder: Path, program: Path, *more: object) -> Path:
    source, library = HERE / "check_api.c", folder / "lib" / "libfirst.a"
    run(cc, "-std=c11", "-O2", *STRICT, f"-I{folder / 'include'}", *more, source, library,
        "-pthread", "-lm", "-o", program)  # fmt: skip
    return program


def facts(text: str) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if " " in line)


@pytest.fixture(scope="module")
def first(built: Callable[..., Built]) -> Built:
    return built(EXAMPLE, "native", name="first")


@pytest.fixture(scope="module")
def said(first: Built, cc: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    program = compiled(cc, first[2], tmp_path_factory.mktemp("api") / "check_api")
    return run(program, PROMPT)


def test_sizes(said: str, first: Built) -> None:
    """Each function gives the constant of its name, and the constants are the plan's."""
    found = facts(said)
    names = [
        "weights",
        "tokenizer",
        "cache",
        "arena",
        "align",
        "stack",
        "vocab",
        "context",
        "abi",
        "options",
    ]
    assert {name: found[name] for name in names} == dict.fromkeys(names, "1")


def test_codes(said: str) -> None:
    found = facts(said)
    expected = {
        "check good": 0, "check context 0": "ECONTEXT", "check context": "ECONTEXT",
        "check threads 0": "ETHREADS", "check threads": "ETHREADS", "check small": "EARENA",
        "check null": "EARENA", "check align": "EALIGN", "init small": 1, "logits of nothing": 1,
        "sample nothing": "EEMPTY", "generate from nothing": "EEMPTY", "no tokens": "EARGUMENT",
        "wrong token": "ETOKEN", "token below 0": "ETOKEN", "wrong token, eval": 1,
        "too many": "EFULL", "too many to embed": "EFULL", "still empty": 0,
        "wrong options": "EARGUMENT", "negative count": "EARGUMENT", "no room": "EROOM",
        "no scratch": "ESCRATCH", "full": "EFULL", "full for eval": "EFULL",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == {
        name: str(CODES.get(str(value), value)) for name, value in expected.items()
    }
    words = dict(re.findall(r"^error (-?\d+) (.+)$", said, re.M))
    assert words["1"] == words["0"] == "no error"
    assert len({words[str(code)] for code in CODES.values()}) == len(CODES)


def test_generation(said: str) -> None:
    """One call, two, or steps of one's own: the same text; and where it ends."""
    found = facts(said)
    whole = bytes.fromhex(found["whole"]).decode()
    assert found["made"] == found["called"] == found["held"] == "20" and len(whole) > 30
    assert found["in two calls"] == found["step by step"] == found["whole"]
    assert found["stopped"] == found["held when stopped"] == "5"
    assert found["whole"].startswith(found["begin"]) and len(found["begin"]) > 0
    assert found["logits after a rewind"] == "0"
    assert found["logits before it"] == found["logits"] == found["eval"] == found["embed"] == "0"
    assert found["pieces"] == found["asked again"] == found["one piece"] == "0"
    assert found["written before they are asked for"] == "0"
    assert found["none after a rewind"] == "1"
    assert found["until full"] == "4" and found["held when full"] == "3"


def test_embedding(said: str, first: Built) -> None:
    """The hidden state after the final norm: the head makes the logits of it."""
    found = facts(said)
    ids = [int(i) for i in found["ids"].split(",")]
    hidden = np.frombuffer(bytes.fromhex(found["hidden"]), ">u4").astype("<u4").view("<f4")
    from bitnetc.reference import dense

    model = first[0]
    logits = dense(hidden[None, :].astype(np.float32), model.head)[0]
    assert np.array_equal(logits, Reference(model).logits(ids)[-1])


def test_header_of_another_build(first: Built, cc: str, tmp_path: Path) -> None:
    """A program compiled with other constants gets a code and no session."""
    (tmp_path / "include").mkdir()
    header = (first[2] / "include" / "first.h").read_text()
    changed = re.sub(r"(#define FIRST_ABI) 0x\w+", r"\1 0x12345678", header)
    assert changed != header
    (tmp_path / "include" / "first.h").write_text(changed)
    source = tmp_path / "other.c"
    source.write_text(
        '#include <stdio.h>\n#include "first.h"\n'
        "static _Alignas(64) unsigned char arena[FIRST_ARENA_BYTES(8, 1)];\n"
        "int main(void)\n{\n"
        "    struct first *m = first_init(arena, sizeof arena, 8, 1);\n"
        "    puts(m ? first_error(0) : first_error(first_check(arena, sizeof arena, 8, 1)));\n"
        "}\n"
    )
    library = first[2] / "lib" / "libfirst.a"
    for folder, expected in (
        (tmp_path / "include", "header and library are of different builds"),
        (first[2] / "include", "no error"),
    ):
        run(cc, f"-I{folder}", source, library, "-pthread", "-lm", "-o", tmp_path / "other")
        assert run(tmp_path / "other") == expected + "\n"


def test_abi_of_other_sizes(first: Built, built: Callable[..., Built]) -> None:
    """Other constants in the header are another ABI; the same ones are the same."""

    def abi(folder: Path) -> str:
        return re.findall(r"#define FIRST_ABI (\w+)", (folder / "include/first.h").read_text())[0]

    smaller = built(EXAMPLE, "native", name="first", context=64)[2]
    assert abi(smaller) != abi(first[2])


def test_whole_characters(built: Callable[..., Built], cc: str, tmp_path: Path) -> None:
    """Random bytes as text: what begins a character waits, and nothing else does."""
    write_checkpoint(tmp_path / "model", **VARIANTS["2b4t"])
    folder = built(tmp_path / "model", "native", name="first")[2]
    source = tmp_path / "pieces.c"
    source.write_text(PIECES)
    program = tmp_path / "pieces"
    run(cc, f"-I{folder / 'include'}", source, folder / "lib/libfirst.a", "-pthread", "-lm",
        "-o", program)  # fmt: skip
    held = 0
    for seed in range(8):
        whole, split = (
            [bytes.fromhex(line) for line in run(program, str(seed), mode).split("\n")[:-1]]
            for mode in ("0", "1")
        )
        assert len(whole) == len(split) > 10
        text, bare = b"".join(whole), b"".join(split)
        assert bare.startswith(text) and len(bare) - len(text) <= 3
        for i in range(len(whole)):
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            decoder.decode(b"".join(split[: i + 1]))
            waits = decoder.getstate()[0]
            assert b"".join(whole[: i + 1]) + waits == b"".join(split[: i + 1])
            held += bool(waits)
    assert held > 10, "no character was ever split: the test shows nothing"


PIECES = r"""
#include <stdio.h>
#include <stdlib.h>
#include "first.h"

static _Alignas(FIRST_ARENA_ALIGN) unsigned char arena[FIRST_ARENA_BYTES(FIRST_CONTEXT, 1)];

static int show(void *user, const char *text, size_t bytes, int32_t token)
{
    (void)user, (void)token;
    for (size_t i = 0; i < bytes; i++)
        printf("%02x", (unsigned char)text[i]);
    printf("\n");
    return 0;
}

int main(int argc, char **argv)
{
    const int32_t begin = 1;
    struct first_options o = { -1, 3.0f, 0, 1.0f, (uint64_t)atoi(argv[1]), atoi(argv[argc - 1]) };
    struct first *m = first_init(arena, sizeof arena, FIRST_CONTEXT, 1);
    return !m || first_generate(m, &begin, 1, &o, show, 0) < 0;
}
"""


@pytest.mark.parametrize("flags", ["-O1", "-O3"])
def test_stack(flags: str, first: Built, cc: str, tmp_path: Path) -> None:
    """Painted and looked at afterwards: no call takes more than the header says."""
    folder = first[2]
    cmake(folder, tmp_path / "build", f"-DCMAKE_C_FLAGS={flags}", "-DBNC_WITH_CLI=OFF")
    program = tmp_path / "check_api"
    run(cc, "-O2", f"-I{folder / 'include'}", HERE / "check_api.c",
        tmp_path / "build" / "libfirst.a", "-pthread", "-lm", "-o", program)  # fmt: skip
    found = {k: int(v) for k, v in facts(run(program, 4 * PROMPT, "stack")).items()}
    assert found["tokens"] > 40, "kernels for many tokens were not called"
    most = max(found[call] for call in ("init", "tokenize", "eval", "generate"))
    assert 1024 < most <= found["limit"], found


def test_sanitised(first: Built, cc: str, tmp_path: Path, unavailable: Unavailable) -> None:
    """Every function under AddressSanitizer and UndefinedBehaviorSanitizer, library included."""
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    probe = tmp_path / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    done = subprocess.run([cc, *flags, probe, "-o", tmp_path / "probe"], capture_output=True)
    if done.returncode or subprocess.run([tmp_path / "probe"], capture_output=True).returncode:
        unavailable("native", "the sanitisers do not work here")
    folder = first[2]
    cmake(folder, tmp_path / "build", f"-DCMAKE_C_FLAGS=-O1 {' '.join(flags)}",
          "-DBNC_WITH_CLI=OFF")  # fmt: skip
    program = tmp_path / "check_api"
    run(cc, *flags, f"-I{folder / 'include'}", HERE / "check_api.c",
        tmp_path / "build" / "libfirst.a", "-pthread", "-lm", "-o", program)  # fmt: skip
    assert facts(run(program, PROMPT))["made"] == "20"
