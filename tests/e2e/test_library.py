"""The library as a product: linked beside others, sanitised, installed, found, shared, called."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ziglang
from checkpoints import write_checkpoint
from unavailable import Unavailable

from bitnetc.toolchain import tool
from e2e.built import EXAMPLE, Built

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMPT = "It is a truth universally acknowledged, that"
STRICT = ("-Wall", "-Wextra", "-pedantic", "-Werror")
HARDENED = (
    "-O2 -Wformat -Wformat-security -Werror=format-security -D_FORTIFY_SOURCE=2 "
    "-fstack-protector-strong"
)


@pytest.fixture(scope="module")
def cc(unavailable: Unavailable) -> str:
    found = shutil.which("cc")
    return found or unavailable("native", "no C compiler")


@pytest.fixture(scope="module")
def first(built: Callable[..., Built]) -> Path:
    return built(EXAMPLE, "native", name="first")[2]


def run(*words: object, **options: object) -> str:
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def cmake(source: Path, build: Path, *options: str, **environment: str) -> str:
    """Configures and builds; returns what was said. Without the environment's own flags."""
    clean = {k: v for k, v in os.environ.items() if k not in ("CFLAGS", "LDFLAGS", "CC")}
    words = (tool("cmake", "cmake"), "-S", source, "-B", build, "-G", "Ninja")
    ninja = f"-DCMAKE_MAKE_PROGRAM={tool('ninja', 'ninja')}"
    said = run(*words, ninja, *options, env={**clean, **environment})
    return said + run(tool("cmake", "cmake"), "--build", build, env={**clean, **environment})


def write(program: Path, **options: object) -> str:
    return run(program, "-q", "-p", PROMPT, "-n", "12", "--temp", "0", **options)


@pytest.mark.parametrize("other", ["same", "tiny"])
def test_two_models_in_one_program(
    other: str, first: Path, cc: str, built: Callable[..., Built], tmp_path: Path
) -> None:
    checkpoint = EXAMPLE
    if other == "tiny":
        checkpoint = tmp_path / "tiny"
        write_checkpoint(checkpoint)
    second = built(checkpoint, "scalar", name="second")[2]
    binary = tmp_path / "two_models"
    libraries = (first / "lib" / "libfirst.a", second / "lib" / "libsecond.a")
    headers = (f"-I{first / 'include'}", f"-I{second / 'include'}")
    source = EXAMPLES / "library" / "two_models.c"
    run(cc, "-std=c11", *STRICT, *headers, source, *libraries, "-pthread", "-o", binary)
    # What each writes is what its own program writes.
    begun = "It is" + sixteen_tokens(first / "bin" / "first", "It is")
    whole = begun + sixteen_tokens(second / "bin" / "second", begun)
    done = subprocess.run([binary, "It is"], capture_output=True, check=True)
    assert done.stdout.decode("utf-8", "replace") == whole + "\n"


def sixteen_tokens(program: Path, prompt: str) -> str:
    """What a program writes after the prompt."""
    words = [program, "-q", "-p", prompt, "-n", "16", "--temp", "0"]
    done = subprocess.run(words, capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace").removesuffix("\n")


@pytest.mark.parametrize("sanitisers", ["address,undefined", "thread", ""])
def test_sessions_share_the_model(
    sanitisers: str, first: Path, cc: str, tmp_path: Path, unavailable: Unavailable
) -> None:
    """Eight sessions on eight threads; the library itself is instrumented, too."""
    flags = [f"-fsanitize={sanitisers}", "-fno-sanitize-recover=all", "-g"] if sanitisers else []
    probe = tmp_path / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    can = subprocess.run([cc, *flags, probe, "-o", tmp_path / "probe"], capture_output=True)
    if can.returncode or subprocess.run([tmp_path / "probe"], capture_output=True).returncode:
        unavailable("native", f"-fsanitize={sanitisers} does not work here")
    cmake(first, tmp_path / "build", f"-DCMAKE_C_FLAGS=-O1 {' '.join(flags)}", "-DBNC_WERROR=ON")
    binary = tmp_path / "sessions"
    source = EXAMPLES / "library" / "sessions.c"
    library = tmp_path / "build" / "libfirst.a"
    include = f"-I{first / 'include'}"
    run(cc, "-std=c11", *STRICT, *flags, include, source, library, "-pthread", "-o", binary)
    expected = run(
        *(first / "bin" / "first", "-q", "-p", PROMPT, "-n", "24", "--seed", "7"),
        *("--temp", "0.8", "--top-k", "0", "--top-p", "0.9"),
    )
    assert run(binary) == PROMPT + expected


@pytest.mark.parametrize("language", ["c -std=c11", "c -std=c17", "c++ -std=c++17"])
def test_header(language: str, first: Path, tmp_path: Path) -> None:
    """On its own, in every language that includes it."""
    kind, standard = language.split()
    found = shutil.which("cc" if kind == "c" else "c++")
    zig = Path(ziglang.__file__).parent / "zig"
    compiler: tuple[object, ...] = (found,) if found else (zig, "cc" if kind == "c" else "c++")
    source = tmp_path / f"includes.{'c' if kind == 'c' else 'cpp'}"
    source.write_text(
        "#include <first.h>\nint room(void);\n"
        "int room(void) { return FIRST_ARENA_BYTES(1, 1) > 0; }\n"
    )
    include = f"-I{first / 'include'}"
    run(
        *compiler,
        standard,
        *STRICT,
        "-Wconversion",
        include,
        "-c",
        source,
        "-o",
        tmp_path / "includes.o",
    )


@pytest.mark.parametrize(
    "flags",
    [
        ("-DCMAKE_C_FLAGS=-O0",),
        ("-DCMAKE_C_FLAGS=-Os",),
        (f"-DCMAKE_C_FLAGS={HARDENED}",),
        ("-DCMAKE_BUILD_TYPE=Debug",),
        ("-DCMAKE_BUILD_TYPE=MinSizeRel", "-DBUILD_SHARED_LIBS=ON"),
        (f"-DCMAKE_C_FLAGS={HARDENED}", "-DBUILD_SHARED_LIBS=ON"),
    ],
    ids=lambda flags: " ".join(flags)[:40],
)
def test_flags_of_the_build(flags: tuple[str, ...], first: Path, tmp_path: Path) -> None:
    """Whatever the build asks for is what is compiled, without warnings, to the same text."""
    folder = tmp_path / "build"
    json = "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"
    for compiler in filter(None, map(shutil.which, ("gcc", "clang"))):
        said = cmake(first, folder, "-DBNC_WERROR=ON", json, *flags, CC=compiler)
        assert "warning" not in said.lower()
        assert write(folder / "first") == write(first / "bin" / "first")
        commands = (folder / "compile_commands.json").read_text()
        asked = re.findall(r"-O[0s]|MinSizeRel|Debug", " ".join(flags))
        assert bool(asked) == ("-O3" not in commands)
        assert "CMAKE_BUILD_TYPE:STRING=\n" in (folder / "CMakeCache.txt").read_text() or (
            "CMAKE_BUILD_TYPE" in flags[0]
        )
        shutil.rmtree(folder)


def test_a_cpu_named_by_the_build(first: Path, tmp_path: Path) -> None:
    """-march is not added beside -mcpu, and a named BNC_ISA_FLAGS always counts."""
    lists = (first / "CMakeLists.txt").read_text()
    cmake_ = tool("cmake", "cmake")
    shutil.copytree(first, tmp_path / "arm")
    lists = re.sub(r'set\(isa_flags ".+"\)', 'set(isa_flags "-march=armv8.2-a+dotprod")', lists)
    (tmp_path / "arm" / "CMakeLists.txt").write_text(lists)
    for flags, expected in (
        (("-DCMAKE_C_FLAGS=-mcpu=cortex-a76",), ""),
        (("-DCMAKE_C_FLAGS=-O2",), "-march=armv8.2-a+dotprod"),
        (("-DCMAKE_C_FLAGS=-mcpu=cortex-a72", "-DBNC_ISA_FLAGS=-mx"), "-mx"),
    ):
        build = tmp_path / "build"
        known = ("-DCMAKE_C_COMPILER_WORKS=1", "-DCMAKE_C_COMPILER_FORCED=1")
        subprocess.run(
            [cmake_, "-S", tmp_path / "arm", "-B", build, *known, *flags], capture_output=True
        )
        cache = (build / "CMakeCache.txt").read_text()
        assert f"BNC_ISA_FLAGS:STRING={expected}\n" in cache
        shutil.rmtree(build)


def test_find_package(built: Callable[..., Built], tmp_path: Path) -> None:
    """The compiled folder is found, also after it was moved."""
    shutil.copytree(built(EXAMPLE, "native", name="austen")[2], tmp_path / "moved")
    cmake(EXAMPLES / "cmake", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={tmp_path / 'moved'}")
    asked = "It is a truth universally"
    program = tmp_path / "moved" / "bin" / "austen"
    expected = run(program, "-p", asked, "-n", "1", "--temp", "0")
    assert run(tmp_path / "build" / "ask") == expected


def test_wrong_version_is_not_found(built: Callable[..., Built], tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "cmake", tmp_path / "ask")
    lists = tmp_path / "ask" / "CMakeLists.txt"
    lists.write_text(lists.read_text().replace("austen 0.1 ", "austen 99.1 "))
    folder = built(EXAMPLE, "native", name="austen")[2]
    command = [tool("cmake", "cmake"), "-S", tmp_path / "ask", "-B", tmp_path / "build"]
    done = subprocess.run(
        [*command, f"-DCMAKE_PREFIX_PATH={folder}"], capture_output=True, text=True
    )
    assert done.returncode and "99.1" in done.stderr


@pytest.mark.parametrize("shared", ["OFF", "ON"])
@pytest.mark.parametrize("libdir", ["lib", "lib/x86_64-linux-gnu"])
def test_pkg_config(
    shared: str, libdir: str, first: Path, cc: str, tmp_path: Path, unavailable: Unavailable
) -> None:
    """Installed with DESTDIR, found relative to itself."""
    pkg_config = shutil.which("pkg-config") or unavailable("native", "no pkg-config")
    options = (f"-DBUILD_SHARED_LIBS={shared}", f"-DCMAKE_INSTALL_LIBDIR={libdir}")
    cmake(first, tmp_path / "build", "-DCMAKE_INSTALL_PREFIX=/opt/models", *options)
    run(
        *(tool("cmake", "cmake"), "--install", tmp_path / "build"),
        env={**os.environ, "DESTDIR": str(tmp_path / "image")},
    )
    prefix = tmp_path / "image" / "opt" / "models"
    search = {**os.environ, "PKG_CONFIG_PATH": str(prefix / libdir / "pkgconfig")}
    static = ["--static"] if shared == "OFF" else []
    flags = run(pkg_config, "--cflags", "--libs", *static, "first", env=search).split()
    assert ("-pthread" in flags) == (shared == "OFF")
    source = EXAMPLES / "library" / "sessions.c"
    run(cc, source, *flags, "-pthread", "-o", tmp_path / "sessions")
    where = {**os.environ, "LD_LIBRARY_PATH": str(prefix / libdir)}
    assert run(tmp_path / "sessions", env=where).startswith(PROMPT)
    assert write(prefix / "bin" / "first", env=where) == write(first / "bin" / "first")


def test_subdirectory(built: Callable[..., Built], tmp_path: Path) -> None:
    """add_subdirectory gives the same target, and leaves the project's settings alone."""
    folder = built(EXAMPLE, "native", name="austen")[2]
    shutil.copyfile(EXAMPLES / "cmake" / "main.c", tmp_path / "main.c")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\n"
        "project(ask LANGUAGES C ASM)\n"
        f"add_subdirectory({folder} austen)\n"
        "add_executable(ask main.c)\n"
        "target_link_libraries(ask PRIVATE austen::austen)\n"
        'if(CMAKE_BUILD_TYPE OR CMAKE_C_FLAGS)\n  message(FATAL_ERROR "settings")\nendif()\n'
    )
    cmake(tmp_path, tmp_path / "build")
    assert "truth" in run(tmp_path / "build" / "ask")


def test_python(built: Callable[..., Built], tmp_path: Path) -> None:
    folder = built(EXAMPLE, "native", name="austen", python=True)[2]
    script = EXAMPLES / "python" / "write.py"
    where = {**os.environ, "PYTHONPATH": str(folder / "python")}
    own = run(folder / "bin" / "austen", "-p", PROMPT, "-n", "40", "--temp", "0")
    assert run(sys.executable, script, PROMPT, env=where) == own
    shutil.copytree(folder, tmp_path / "there", ignore=shutil.ignore_patterns("bin", "lib", "*.so"))
    cmake(tmp_path / "there", tmp_path / "build", f"-DCMAKE_INSTALL_PREFIX={tmp_path / 'to'}")
    run(tool("cmake", "cmake"), "--install", tmp_path / "build")
    where["PYTHONPATH"] = str(tmp_path / "to" / "python")
    assert run(sys.executable, script, PROMPT, env=where) == own
