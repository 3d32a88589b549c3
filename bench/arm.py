"""What Arm kernels cost, without a board: cycles and instructions of inner loops by llvm-mca.

    python bench/arm.py                          our inner loops on the cores of Raspberry Pis
    python bench/arm.py --peers DIR              beside those of other engines
    python bench/arm.py --boards                 projected tokens per second, with the formula

A loop is what the compiler makes of a function's innermost loop; `cycles` and `instr` are for 256
weights times one token, weights in the first cache. Each is compiled both for the target of bitnetc
and for the very core, and the faster one counts. Of ours `a block` is cycles for a block of the
layout as compiled for the target, the unit of target files, beside the figure in the file that is
about this core. llvm-mca knows no caches and no branches predicted wrongly, and its models are
those of the makers' optimisation guides or coarser (for the Cortex-A53): ratios of loops on one
core say more than cycles. Instructions of whole kernels, as executed, are what
bench/instructions.py counts.

DIR holds checkouts of other engines, of which loops are taken out as they stand:
  BitNet        github.com/microsoft/BitNet, 16da220ae2b5 (July 2026)
  llama.cpp     github.com/ggml-org/llama.cpp, c392e5094dea (February 2025)
  ik_llama.cpp  github.com/ikawrakow/ik_llama.cpp, 8337e4cd3861 (August 2026)
"""

import argparse
import math
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mistakes  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "kernels")]

from programs import FLAGS, compiler_words  # noqa: E402

from bitnetc import resources  # noqa: E402
from bitnetc.board import boards as all_boards  # noqa: E402
from bitnetc.cost import matrix_cost  # noqa: E402
from bitnetc.kernels import KERNELS, Kernel  # noqa: E402
from bitnetc.target import Target, load_target  # noqa: E402
from bitnetc.toolchain import choose  # noqa: E402


@dataclass(frozen=True)
class Core:
    name: str
    model: str  # llvm-mca's -mcpu
    target: str
    own: str  # zig cc's flag for this very core
    figures: str = ""  # the target whose figures are of this core
    triple: str = "aarch64"


CORES = (
    Core("Cortex-A53", "cortex-a53", "rpi3", "-mcpu=cortex_a53", "rpi3"),
    Core("Cortex-A55", "cortex-a55", "armv8.2-dotprod", "-mcpu=cortex_a55"),
    Core("Cortex-A72", "cortex-a72", "rpi4", "-mcpu=cortex_a72-aes-sha2", "armv8-neon"),
    # llvm-mca gives the A76 the model of an A57; the Neoverse N1 is its sister.
    Core("Cortex-A76", "neoverse-n1", "rpi5", "-mcpu=cortex_a76", "armv8.2-dotprod"),
    Core("Neoverse V1", "neoverse-v1", "armv8.6-i8mm", "-mcpu=neoverse_v1"),
    Core("Neoverse N2", "neoverse-n2", "armv8.6-i8mm", "-mcpu=neoverse_n2", "armv8.6-i8mm"),
    Core("Cortex-A7", "cortex-a7", "armv7-neon", "-mcpu=cortex_a7", "", "armv7"),
)


@dataclass(frozen=True)
class Loop:
    """One inner loop: the C that has it, and which instruction counts its weights."""

    name: str
    tokens: str  # "one" or "many"
    source: str
    key: str  # pattern of the instruction
    weights: int  # times tokens, that one such instruction stands for
    needs: tuple[str, ...] = ()  # features of the target
    lacks: tuple[str, ...] = ()  # features of targets that use another loop
    plus: bool = False  # C++
    peer: bool = False
    kernel: Kernel | None = None  # of ours


@dataclass
class Cost:
    cycles: float
    instructions: float
    flags: str  # of the target, or of the core
    built: float  # cycles as the target has it compiled


def _trits(kernel: Kernel) -> bool:
    """Whether it multiplies trits by activations of eight bits."""
    code = kernel.layout.code
    return not code.integers and code.step == 1 and kernel.activation != "bits"


def our_loops(target: Target) -> list[Loop]:
    """Every kernel of the target for trits and signs, with one token and with many."""
    found = []
    for kernel in KERNELS.values():
        if kernel.layout.code.integers or kernel.isa == "scalar":
            continue
        if not set(kernel.features) <= set(target.features):
            continue
        for tokens, n in (("one", 1), ("many", 64)):
            source = (
                f'#include "bnc_runtime.h"\n#include "{kernel.header}"\n'
                "void loop(int32_t *acc, const uint8_t *w, const struct bnc_acts *x, int rows, int "
                f"cols)\n{{\n    {kernel.symbol}(acc, w, x, rows, cols, {n});\n}}\n"
            )
            key, weights = _key(kernel, tokens)
            found.append(Loop(kernel.name, tokens, source, key, weights, kernel=kernel))
    return found


def _key(kernel: Kernel, tokens: str) -> tuple[str, int]:
    if kernel.activation == "bits":
        lanes = kernel.layout.code.lanes
        return (r"vcnt\.8" if kernel.isa == "neon32" else r"cnt", 16 * lanes)
    if kernel.layout_name == "b1_m128k8":
        return r"vtbl\.8", 32
    if kernel.layout_name == "b1_m4k128" and kernel.isa == "neon":
        return r"sadalp", 16
    if kernel.isa == "neoni8mm" and tokens == "many":
        return r"u?s?mmla|smmla", 32
    if kernel.activation == "lut16":
        if kernel.isa == "neon32":
            return r"vtbl\.8", 16
        return (r"tbl", 16) if kernel.layout_name == "tl1_m64k4" else (r"tbl", 32)
    if kernel.isa in ("neondot", "neoni8mm"):
        return r"sdot", 16
    return (r"vmlal\.s8", 8) if kernel.isa == "neon32" else (r"smlal2?", 8)


PRELUDE = """#include <arm_neon.h>
#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
"""
I2_S = """#define QK_I2_S 64
#define ACT_PARALLEL
#ifdef __ARM_FEATURE_DOTPROD
#define PARALLEL_SIZE 8
#else
#define PARALLEL_SIZE 4
#endif
"""
TQ2_0 = """#define QK_K 256
#define GGML_RESTRICT restrict
#define UNUSED(x) (void)(x)
#define GGML_FP16_TO_FP32(x) ((float)*(const __fp16 *)&(x))
#define GGML_CPU_FP16_TO_FP32(x) GGML_FP16_TO_FP32(x)
typedef struct { uint8_t qs[QK_K / 4]; uint16_t d; } block_tq2_0;
typedef struct { float d; int8_t qs[QK_K]; int16_t bsums[QK_K / 16]; } block_q8_K;
"""
IQ2_BN = """#include <cstdio>
#include <cstdlib>
#include <cstring>
#define QK_IQ1BN 64
#define IQK_NOINLINE __attribute__((noinline))
#define GGML_ABORT(...) abort()
#define ggml_vdotq_s32(a, b, c) vdotq_s32(a, b, c)
typedef struct { uint8_t qs[QK_IQ1BN / 4]; } block_iq2_bn;
struct DataInfo {
    float *s; const char *cy; size_t bs; size_t by; int cur_y = 0;
    const char *src1_row(int iy) const { return cy + (cur_y + iy) * by; }
    void store(int ix, int iy, float v) const { s[(cur_y + iy) * bs + ix] = v; }
    void store(int ix, int iy, float32x4_t v) const { vst1q_f32(s + (cur_y + iy) * bs + ix, v); }
};
"""


def peer_loops(folder: Path) -> list[Loop]:
    """Other engines' loops, their text taken out of the checkouts in `folder`."""
    mad = (folder / "BitNet/src/ggml-bitnet-mad.cpp").read_text()
    lut = "BitNet/preset_kernels/bitnet_b1_58-large/bitnet-lut-kernels-tl1.h"
    tl1 = (folder / lut).read_text()
    old = folder / "llama.cpp/ggml/src/ggml-cpu/ggml-cpu-quants.c"
    new = folder / "llama.cpp/ggml/src/ggml-cpu/arch/arm/quants.c"
    quants = (new if new.exists() else old).read_text()
    bit = (folder / "ik_llama.cpp/ggml/src/iqk/iqk_gemm_1bit.cpp").read_text()
    bit = bit[bit.index("// -------------------------------- __aarch64__") :]
    smlal, sdot = (r"smlal2?", 8), (r"sdot", 16)
    found = []
    for what, tokens in (("1x1", "one"), ("1xN", "one"), ("Nx1", "many")):
        text = PRELUDE + I2_S + _taken(mad, rf"^void ggml_vec_dot_i2_i8_s_{what}\(")
        for (key, weights), needs, lacks in (
            (sdot, ("dotprod",), ()),
            (smlal, (), ("dotprod",)),
        ):
            name = f"bitnet.cpp I2_S {what}"
            found.append(Loop(name, tokens, text, key, weights, needs, lacks, True, True))
    text = TQ2_0 + _taken(quants, r"^void ggml_vec_dot_tq2_0_q8_K\(")
    for tokens in ("one", "many"):
        for (key, weights), needs, lacks in (
            (sdot, ("dotprod",), ()),
            (smlal, (), ("dotprod",)),
        ):
            one = Loop("llama.cpp TQ2_0", tokens, PRELUDE + text, key, weights, needs, lacks)
            found.append(Loop(**{**one.__dict__, "peer": True}))
    defines = "".join(re.findall(r"^#define B(?:M|BK)1536_4096 \d+\n", tl1, re.M))
    text = PRELUDE + defines + _taken(tl1, r"^inline void tbl_impl_1536_4096\(")
    text += "void loop(int32_t *c, int8_t *l, uint8_t *a) { tbl_impl_1536_4096(c, l, a); }\n"
    for tokens in ("one", "many"):
        found.append(Loop("bitnet.cpp TL1", tokens, text, r"tbl", 16, (), (), True, True))
    text = PRELUDE + IQ2_BN
    for pattern in (
        r"^template <int nrc> struct Q8_K64 \{",
        r"^template <int nrc> struct Q8_16 \{",
        r"^template <int nrc_y>\nstatic IQK_NOINLINE void mul_mat_iq2_bn_r4_q8_k16\(",
        r"^template <int nrc_y>\nstatic void mul_mat_iq2bn_q8_K64\(",
    ):
        text += _taken(bit, pattern) + ";\n"
    # Of many tokens IQ2_BN takes eight at a time and IQ2_BN_R4 four or five, on Arm at most.
    for name, function, most in (
        ("IQ2_BN", "iq2bn_q8_K64", (8,)),
        ("IQ2_BN_R4", "iq2_bn_r4_q8_k16", (4, 5)),
    ):
        for n in (1, *most):
            call = (
                "void loop(int n, const void *x, size_t b, const DataInfo *i, int r) "
                f"{{ mul_mat_{function}<{n}>(n, x, b, *i, r); }}\n"
            )
            whole, tokens = text + call, "one" if n == 1 else "many"
            said = f"ik_llama.cpp {name}" + (f" {n}" if n == 5 else "")
            found.append(Loop(said, tokens, whole, *sdot, ("dotprod",), (), True, True))
    return found


def _taken(text: str, pattern: str) -> str:
    """One definition: from the pattern to the brace that closes it."""
    match = re.search(pattern, text, re.M)
    if not match:
        sys.exit(f"nothing in that checkout matches {pattern}: another commit?")
    depth, end = 0, text.index("{", match.start())
    while True:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
        if depth == 0:
            return text[match.start() : end] + "\n"


BRANCH = re.compile(r"^\s+(?:b|b\.?[a-z]{2}|cbn?z|tbn?z)\s.*?(\.L\w+)\s*$")


def innermost(assembly: str) -> list[list[str]]:
    """The instructions of every loop that has none in it."""
    found: list[list[str]] = []
    labels: dict[str, int] = {}
    lines = assembly.splitlines()
    for i, line in enumerate(lines):
        if re.match(r"^[A-Za-z_]\w*:", line):
            labels = {}
        elif match := re.match(r"^(\.L\w+):", line):
            labels[match[1]] = i
        elif (match := BRANCH.match(line)) and match[1] in labels:
            start = labels[match[1]]
            body = lines[start + 1 : i + 1]
            nested = [m for m in map(BRANCH.match, body[:-1]) if m]
            if not any(labels.get(m[1], -1) > start for m in nested):
                found.append([x.split("//")[0] for x in body if re.match(r"^\s+[a-z]", x)])
    return found


def compiled(loop: Loop, target: Target, flags: tuple[str, ...], folder: Path) -> str:
    """Assembly text."""
    toolchain = choose(target, False, None)
    source = folder / ("loop.cpp" if loop.plus else "loop.c")
    source.write_text(loop.source)
    words = [w for w in compiler_words(toolchain, flags, link=False) if w != "-s"]
    if loop.plus:
        words = ["c++" if w == "cc" else w for w in words]
    standard = ["-std=gnu++17", "-O3"] if loop.plus else list(FLAGS)
    if loop.peer:
        standard += ["-w", "-flax-vector-conversions"]
        standard = ["-std=gnu11" if w == "-std=c11" else w for w in standard]
    words += [*standard, "-DBNC_THREADS=0", f"-I{resources.RUNTIME}", "-S", "-o"]
    done = subprocess.run([*words, str(folder / "loop.s"), str(source)], capture_output=True)
    if done.returncode:
        sys.exit(f"{loop.name}: {done.stderr.decode()[:2000]}")
    return (folder / "loop.s").read_text()


def cost(loop: Loop, core: Core, folder: Path, mca: str) -> Cost | None:
    """The faster of two compilations; None when the loop is not there."""
    target = load_target(core.target)
    best: Cost | None = None
    built = math.nan
    for flags in dict.fromkeys((target.zig_flags, (core.own,))):
        if core.triple == "armv7":
            flags = target.zig_flags
        assembly = compiled(loop, target, flags, folder)
        bodies = innermost(assembly)
        keys = [sum(bool(re.match(rf"\s+(?:{loop.key})\s", x)) for x in b) for b in bodies]
        if not keys or not max(keys):  # unrolled to the end: the function itself
            bodies = [[x for x in assembly.splitlines() if re.match(r"^\s+[a-z]", x)]]
            keys = [sum(bool(re.match(rf"\s+(?:{loop.key})\s", x)) for x in bodies[0])]
        if not keys[0] and not max(keys):
            continue
        weights = max(keys) * loop.weights
        cycles, body = min(
            (cycles_of(body, core, mca) * 256 / weights, body)
            for body, number in zip(bodies, keys, strict=True)
            if number == max(keys)
        )
        if flags == target.zig_flags:
            built = cycles
        if best is None or cycles < best.cycles:
            said = "target" if flags == target.zig_flags else "core"
            best = Cost(cycles, len(body) * 256 / weights, said, built)
    return best


def cycles_of(body: list[str], core: Core, mca: str) -> float:
    """Cycles of one turn; not a number where llvm-mca has no model of the core."""
    words = [mca, f"-mtriple={core.triple}", f"-mcpu={core.model}", "-iterations=200"]
    if core.triple == "aarch64":
        words.append("-mattr=+dotprod,+i8mm,+sve2")
    done = subprocess.run(words, input="\n".join(body) + "\n", capture_output=True, text=True)
    match = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if not match and "scheduling information" in done.stderr:
        return math.nan  # no model of that core, such as of the Cortex-A7
    if not match:
        sys.exit(f"llvm-mca: {done.stderr[:2000]}")
    return int(match[1]) / 200


def loops(peers: Path | None, mca: str, only: str) -> None:
    """The table of inner loops."""
    if not any(core.name.endswith(only) for core in CORES):
        sys.exit(f"--core {only}: known are {', '.join(core.name for core in CORES)}")
    if not shutil.which(mca):
        sys.exit(f"{mca} is not here: it comes with LLVM; --mca says where")
    version = subprocess.run([mca, "--version"], capture_output=True, text=True).stdout
    number = version.split("version", 1)[1].split()[0]
    print(f"llvm-mca {number}; cycles and instructions for 256 weights and one token")
    theirs = peer_loops(peers) if peers else []
    with tempfile.TemporaryDirectory() as scratch:
        for core in CORES:
            if only and not core.name.endswith(only):
                continue
            target = load_target(core.target)
            print(f"\n{core.name} ({core.model})")
            usable = [
                p
                for p in theirs
                if core.triple == "aarch64"
                and set(p.needs) <= set(target.features)
                and not set(p.lacks) & set(target.features)
            ]
            for tokens in ("one", "many"):
                best: dict[bool, tuple[float, str]] = {}
                for loop in our_loops(target) + usable:
                    if loop.tokens != tokens:
                        continue
                    found = cost(loop, core, Path(scratch), mca)
                    if not found:
                        continue
                    print(
                        f"  {tokens:<5}{loop.name:<26}{found.cycles:7.1f} cycles"
                        f"{found.instructions:7.1f} instr   for the {found.flags:<6}"
                        + _block(loop, found.built, core)
                    )
                    if loop.kernel and not _trits(loop.kernel):
                        continue  # nothing of others to compare with
                    best[loop.peer] = min(best.get(loop.peer, (1e9, "")), (found.cycles, loop.name))
                if len(best) == 2:
                    ratio = best[False][0] / best[True][0]
                    print(f"  {tokens:<5}{best[False][1]} / {best[True][1]}: {ratio:.2f}")


def _block(loop: Loop, cycles: float, core: Core) -> str:
    """The same for a block of the layout, and what the core's target says of it."""
    if not loop.kernel:
        return ""
    said = f"{cycles * loop.kernel.layout.rows * loop.kernel.layout.cols / 256:8.1f} a block"
    if not core.figures:
        return said
    figures = load_target(core.figures).cost
    table = figures.cycles_per_block if loop.tokens == "one" else figures.cycles_many
    return f"{said}, {table[loop.name]} in {core.figures}" if loop.name in table else said


# dim, FFN, rows of k and v, layers, vocabulary
SHAPES = {
    "BitNet b1.58 2B-4T": (2560, 6912, 640, 30, 128256),
    "bitnet_b1_58-large (0.7B)": (1536, 4096, 1536, 24, 32002),
}
BOARDS = ("rpi-zero2", "rpi3-1gb", "rpi4-4gb", "rpi5-4gb")
BATCH = 64


def boards() -> None:
    """Tokens per second from bytes, published bandwidth and cycles: a projection."""
    print("answer: 1 / max(bytes / rate, cycles / (cores * clock))     bytes: ternary + int8 head")
    print("prompt: 1 / max(ternary / 64 / rate, cycles of many / (cores * clock)), no head")
    print("no cache, no attention, no float work; every weight is read; check with --bench\n")
    print(f"{'board':<11}{'MB':>6}{'ms':>7}{'Mcycles':>9}{'ms':>7}{'answer/s':>10}{'prompt/s':>10}")
    for name, (dim, ffn, kv, layers, vocab) in SHAPES.items():
        print(name)
        shapes = [(dim, dim, 3), (kv, dim, 3), (kv, dim, 3), (dim, dim, 1)]
        shapes += [(ffn, dim, 2), (ffn, dim, 2), (dim, ffn, 1)]
        for board in (all_boards()[b] for b in BOARDS):
            target = load_target(board.target)
            weights = one = many = 0.0
            for rows, cols, sharers in shapes:
                best = min(
                    (
                        _sums(k, rows, cols, sharers, target)
                        for k in target.kernels
                        if _trits(k) and k.skips == "nothing"
                    ),
                    key=lambda found: found[0],
                )
                weights, one, many = weights + best[1], one + best[2], many + best[3]
            head = next(k for k in target.kernels if k.layout.code.integers == 8)
            head_cycles = vocab * dim / 64 * target.cost.cycles_per_block[head.name]
            read, cycles = layers * weights + vocab * dim, layers * one + head_cycles
            rate, power = board.bytes_per_second or 1.0, board.cores * board.hertz
            answer = 1 / max(read / rate, cycles / power)
            prompt = 1 / max(layers * weights / BATCH / rate, layers * many / power)
            print(
                f"{board.name:<11}{read / 1e6:6.0f}{1e3 * read / rate:7.1f}{cycles / 1e6:9.0f}"
                f"{1e3 * cycles / power:7.1f}{answer:10.1f}{prompt:10.1f}"
            )


def _sums(
    kernel: Kernel, rows: int, cols: int, sharers: int, target: Target
) -> tuple[float, float, float, float]:
    """What the planner compares, bytes, cycles of one token, of one of many."""
    cost, layout = target.cost, kernel.layout
    rows, cols = layout.pad(rows, cols)
    found = matrix_cost(kernel, rows, cols, sharers, cost)
    many = found.prompt or found.compute
    packed = layout.packed_bytes(rows, cols)
    return found.choice, packed, found.compute + found.tables, many + found.tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, help="checkouts of other engines")
    parser.add_argument("--boards", action="store_true", help="projected tokens per second")
    parser.add_argument("--core", default="", help="only this one, such as A53 or N2")
    parser.add_argument("--mca", default="llvm-mca", help="LLVM 22 or later knows all the cores")
    arguments = parser.parse_args()
    if arguments.boards:
        boards()
    else:
        loops(arguments.peers, arguments.mca, arguments.core)


if __name__ == "__main__":
    main()
