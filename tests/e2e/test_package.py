"""Packages of a compiled model, and the rules of those who install them.

The rules are those of OpenEmbedded's insane.bbclass and of Buildroot's checks, applied to what is
built here; docs/packaging.md says which tool has seen what.
"""

import filecmp
import hashlib
import os
import re
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from unavailable import Unavailable

from bitnetc.package import KINDS, package
from bitnetc.toolchain import tool
from e2e.built import EXAMPLE, Built
from e2e.test_mistakes import assert_refused, bitnetc

PROMPT = ("-q", "-p", "It is a truth", "-n", "8", "--temp", "0")


@dataclass(frozen=True)
class Packages:
    compiled: Path
    folder: Path  # of all kinds

    @property
    def source(self) -> Path:
        return self.folder / "jane-0.1.0.tar.gz"


@pytest.fixture(scope="module")
def packages(built: Callable[..., Built], tmp_path_factory: pytest.TempPathFactory) -> Packages:
    compiled = built(EXAMPLE, "native", name="jane")[2]
    folder = tmp_path_factory.mktemp("packages") / "all"
    package(compiled, folder, KINDS)
    return Packages(compiled, folder)


@pytest.fixture(scope="module")
def installed(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The source tarball, built and installed the way a distribution does."""
    done: dict[str, Path] = {}

    def install(shared: str) -> Path:
        if shared not in done:
            work = tmp_path_factory.mktemp("distribution")
            with tarfile.open(packages.source) as tar:
                tar.extractall(work, filter="data")
            source, build, image = work / "jane-0.1.0", work / "build", work / "image"
            flags = "-O2 -g -Wformat -Werror=format-security -D_FORTIFY_SOURCE=2"
            flags += f" -fstack-protector-strong -ffile-prefix-map={source}=/usr/src/debug"
            flags += f" -ffile-prefix-map={build}=/usr/src/debug"
            cmake = tool("cmake", "cmake")
            configure = [cmake, "-S", source, "-B", build, f"-DBUILD_SHARED_LIBS={shared}"]
            configure += ["-DCMAKE_INSTALL_PREFIX=/usr", "-DCMAKE_INSTALL_LIBDIR=lib"]
            configure += [f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_ASM_FLAGS={flags}"]
            for command in (
                [*configure, "-DBNC_WERROR=ON"],
                [cmake, "--build", build],
                [cmake, "--install", build],
            ):
                environment = {**os.environ, "DESTDIR": str(image)}
                subprocess.run(command, check=True, capture_output=True, env=environment)
            done[shared] = image
        return done[shared]

    return install


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        files = [m for m in tar.getmembers() if m.isfile()]
        return {m.name: tar.extractfile(m).read() for m in files}  # type: ignore[union-attr]


def members(deb: Path) -> dict[str, bytes]:
    """The parts of an ar archive."""
    data, at, found = deb.read_bytes(), 8, {}
    assert data[:8] == b"!<arch>\n"
    while at < len(data):
        name, size = data[at : at + 16].decode().strip(), int(data[at + 48 : at + 58])
        assert data[at + 58 : at + 60] == b"`\n"
        found[name] = data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


def test_same_bytes_elsewhere(packages: Packages, tmp_path: Path) -> None:
    """From a copy of the folder, in another place, at another time, by another umask."""
    shutil.copytree(packages.compiled, tmp_path / "copy", copy_function=shutil.copyfile)
    before = os.umask(0o077)
    try:
        package(tmp_path / "copy", tmp_path / "again", KINDS)
    finally:
        os.umask(before)
    files = [p.relative_to(packages.folder) for p in packages.folder.rglob("*") if p.is_file()]
    again = [p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*")]
    assert set(files) <= set(again)
    equal, different, missing = filecmp.cmpfiles(
        packages.folder, tmp_path / "again", files, shallow=False
    )
    assert not different and not missing and len(equal) == len(files)


def test_command(packages: Packages, tmp_path: Path) -> None:
    done = bitnetc("package", packages.compiled, "--yocto", "--deb", "-o", tmp_path / "p")
    assert done.returncode == 0, done.stderr
    said = {Path(line).name for line in done.stdout.split()}
    assert said == {path.name for path in (tmp_path / "p").iterdir()}
    assert_refused(bitnetc("package", tmp_path, "-o", tmp_path / "q"), "not a folder that bitnetc")
    assert not (tmp_path / "q").exists()


def test_prebuilt(packages: Packages, tmp_path: Path) -> None:
    """Unpacked anywhere, it runs and is found."""
    (archive,) = packages.folder.glob("jane-0.1.0-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    prefix = tmp_path / archive.name.removesuffix(".tar.gz")
    ours = subprocess.run([packages.compiled / "bin" / "jane", *PROMPT], capture_output=True)
    theirs = subprocess.run([prefix / "bin" / "jane", *PROMPT], capture_output=True)
    assert theirs.stdout == ours.stdout and ours.stdout
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(x C)\nfind_package(jane 0.1 REQUIRED)\n"
        "if(NOT TARGET jane::jane)\n  message(FATAL_ERROR none)\nendif()\n"
    )
    command = [tool("cmake", "cmake"), "-S", tmp_path, "-B", tmp_path / "build"]
    subprocess.run([*command, f"-DCMAKE_PREFIX_PATH={prefix}"], check=True, capture_output=True)
    assert "pcfiledir" in (prefix / "lib" / "pkgconfig" / "jane.pc").read_text()


# What OpenEmbedded's package_qa checks in binaries.


def binaries(image: Path) -> list[Path]:
    found = [
        *image.glob("usr/bin/*"),
        *image.glob("usr/lib/lib*.so.*.*.*"),
        *image.glob("usr/lib/*.a"),
    ]
    assert len(found) == 2
    return found


def readelf(*words: object, unavailable: Unavailable) -> str:
    program = shutil.which("readelf") or unavailable("native", "no readelf")
    command = [program, "-W", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("shared", ["OFF", "ON"])
def test_buildpaths(shared: str, installed: Callable[..., Path], packages: Packages) -> None:
    """No path of the machine that built it, in any file; debug information is mapped."""
    image = installed(shared)
    own = [image.parent, packages.compiled, Path.cwd(), Path.home()]
    for path in image.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for word in own:
                assert str(word).encode() not in data, f"{path.name} holds {word}"


@pytest.mark.parametrize("shared", ["OFF", "ON"])
def test_elf(shared: str, installed: Callable[..., Path], unavailable: Unavailable) -> None:
    """ldflags, rpaths, textrel, executable stack, segments for pages of 64 KiB."""
    for path in binaries(installed(shared)):
        if path.suffix == ".a":
            sections = readelf("-S", path, unavailable=unavailable)
            assert sections.count(".note.GNU-stack") == 2  # an object each of C and assembler
            assert not re.search(r"\.note\.GNU-stack.* AX", sections)
            continue
        dynamic = readelf("-d", path, unavailable=unavailable)
        assert "(GNU_HASH)" in dynamic
        assert not re.search(r"\((RPATH|RUNPATH|TEXTREL)\)|TEXTREL", dynamic)
        needed = set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
        assert needed <= {"libc.so.6", "libjane.so.0.1", "ld-linux-x86-64.so.2"}
        segments = readelf("-l", path, unavailable=unavailable)
        assert re.search(r"GNU_STACK .* RW +0x", segments)
        loads = re.findall(r"LOAD .* (0x[0-9a-f]+)\n", segments)
        assert loads and all(int(align, 16) == 65536 for align in loads)
        if ".so" in path.name:
            assert "Library soname: [libjane.so.0.1]" in dynamic
            symbols = readelf("--dyn-syms", path, unavailable=unavailable)
            shown = re.findall(r"(?:GLOBAL|WEAK) +DEFAULT +\d+ (\S+)", symbols)
            assert len(shown) >= 14 and all(name.startswith("jane_") for name in shown)
            assert not any(name.endswith(("_weights", "_tokenizer")) for name in shown)


@pytest.mark.parametrize("shared", ["OFF", "ON"])
def test_split(shared: str, installed: Callable[..., Path]) -> None:
    """bitbake.conf's FILES put each file into a package: .a into -staticdev, and so on."""
    rules = (
        ("staticdev", r"usr/lib/[^/]*\.a"),
        ("dev", r"usr/include/.*|usr/lib/lib[^/]*\.so|usr/lib/pkgconfig/.*|usr/lib/cmake/.*"),
        ("", r"usr/bin/.*|usr/lib/lib[^/]*\.so\..*"),
    )
    image = installed(shared)
    split: dict[str, set[str]] = {"staticdev": set(), "dev": set(), "": set()}
    for path in image.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            continue
        name = str(path.relative_to(image))
        owner = next((package for package, rule in rules if re.fullmatch(rule, name)), None)
        assert owner is not None, f"installed-vs-shipped: {name}"
        split[owner].add(path.name)
        assert (path.is_symlink() and name.endswith(".so")) == (
            owner == "dev" and name.endswith(".so")
        )
    libraries = {"libjane.so.0.1", "libjane.so.0.1.0"}
    assert split["staticdev"] == ({"libjane.a"} if shared == "OFF" else set())
    assert split[""] == {"jane"} | (libraries if shared == "ON" else set())
    assert {"jane.h", "jane.pc", "janeConfig.cmake"} <= split["dev"]


def test_library_alone(packages: Packages, tmp_path: Path) -> None:
    """PACKAGECONFIG without cli: no program is built."""
    with tarfile.open(packages.source) as tar:
        tar.extractall(tmp_path, filter="data")
    cmake, source = tool("cmake", "cmake"), tmp_path / "jane-0.1.0"
    for command in (
        [cmake, "-S", source, "-B", tmp_path / "b", "-DBNC_WITH_CLI=OFF"],
        [cmake, "--build", tmp_path / "b"],
        [cmake, "--install", tmp_path / "b", "--prefix", tmp_path / "image"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    assert not (tmp_path / "image" / "bin").exists()
    assert (tmp_path / "image" / "lib" / "libjane.a").is_file()


# The Yocto layer.


def variables(recipe: str) -> dict[str, str]:
    """Assignments of a recipe or configuration file."""
    joined = recipe.replace("\\\n", "")
    found = re.findall(r'^([\w:\[\]${}-]+) *(?:\?\?|\?|\.|\+)?= *"(.*)"$', joined, re.M)
    return dict(found)


def test_yocto(packages: Packages) -> None:
    layer = packages.folder / "meta-jane"
    conf = variables((layer / "conf" / "layer.conf").read_text())
    assert conf["BBFILE_COLLECTIONS"] == "jane" and conf["LAYERDEPENDS_jane"] == "core"
    assert "scarthgap" in conf["LAYERSERIES_COMPAT_jane"].split()
    (path,) = layer.glob("recipes-*/*/*.bb")
    assert path.name == "jane_0.1.0.bb"
    text = path.read_text()
    recipe = variables(text)
    for required in ("SUMMARY", "LICENSE", "LIC_FILES_CHKSUM", "SRC_URI", "PACKAGECONFIG"):
        assert recipe[required], required
    assert "inherit cmake pkgconfig\n" in text
    assert "S" not in recipe  # the default of every release since the tarball's folder is BP
    assert not [line for line in text.splitlines() if "_append" in line or "WORKDIR" in line]
    assert recipe["PACKAGECONFIG[cli]"] == "-DBNC_WITH_CLI=ON,-DBNC_WITH_CLI=OFF"
    assert recipe["ALLOW_EMPTY:${PN}"] == "1" and recipe["RDEPENDS:${PN}-dev"] == ""
    arch = {"x86_64": "x86_64", "aarch64": "aarch64"}[os.uname().machine]
    assert re.fullmatch(recipe["COMPATIBLE_HOST"], f"{arch}-poky-linux"[: len(arch) + 11])
    archive = path.parent / "files" / "jane-0.1.0.tar.gz"
    assert recipe["SRC_URI[sha256sum]"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    licence = contents(archive)["jane-0.1.0/LICENSES/MIT.txt"]
    assert recipe["LIC_FILES_CHKSUM"].endswith(f";md5={hashlib.md5(licence).hexdigest()}")


# The Buildroot tree.


def test_buildroot(packages: Packages) -> None:
    tree = packages.folder / "buildroot-jane"
    folder = tree / "package" / "jane"
    assert (tree / "external.desc").read_text().startswith("name: BITNETC_JANE\n")
    assert "$(BR2_EXTERNAL_BITNETC_JANE_PATH)/package/*/*.mk" in (tree / "external.mk").read_text()
    sourced = (tree / "Config.in").read_text()
    assert sourced == 'source "$BR2_EXTERNAL_BITNETC_JANE_PATH/package/jane/Config.in"\n'
    config = (folder / "Config.in").read_text()
    assert "config BR2_PACKAGE_JANE\n" in config
    assert "\tdepends on BR2_TOOLCHAIN_HAS_THREADS\n" in config
    assert all(len(line.expandtabs(8)) <= 80 for line in config.splitlines())
    makefile = (folder / "jane.mk").read_text()
    values = dict(re.findall(r"^JANE_(\w+) \+?= (.*)$", makefile, re.M))
    assert values["VERSION"] == "0.1.0" and values["LICENSE"] == "MIT"
    assert values["INSTALL_STAGING"] == "YES" and values["SUPPORTS_IN_SOURCE_BUILD"] == "NO"
    assert makefile.endswith("\n$(eval $(cmake-package))\n")
    archive = folder / "jane-0.1.0.tar.gz"
    files = contents(archive)
    for line in (folder / "jane.hash").read_text().splitlines():
        if line.startswith("#"):
            continue
        kind, digest, name = line.split("  ")
        data = archive.read_bytes() if name == archive.name else files[f"jane-0.1.0/{name}"]
        assert kind == "sha256" and hashlib.sha256(data).hexdigest() == digest
    licensed = set(values["LICENSE_FILES"].split())
    assert all(name in (folder / "jane.hash").read_text() for name in licensed)


# The Debian packages.


def test_deb(packages: Packages, tmp_path: Path) -> None:
    """Names, control fields, checksums; the program in one, what others build with in the other."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    listed = {}
    for package_name in ("jane", "libjane-dev"):
        parts = members(packages.folder / f"{package_name}_0.1.0_{arch}.deb")
        assert list(parts) == ["debian-binary", "control.tar.gz", "data.tar.gz"]
        assert parts["debian-binary"] == b"2.0\n"
        for name, data in parts.items():
            (tmp_path / name).write_bytes(data)
        control = contents(tmp_path / "control.tar.gz")
        fields = dict(re.findall(r"^([\w-]+): (.*)$", control["./control"].decode(), re.M))
        assert fields["Package"] == package_name and fields["Architecture"] == arch
        assert fields["Version"] == "0.1.0" and "<" in fields["Maintainer"]
        files = contents(tmp_path / "data.tar.gz")
        for line in control["./md5sums"].decode().splitlines():
            digest, path = line.split("  ")
            assert hashlib.md5(files[f"./{path}"]).hexdigest() == digest
        assert len(control["./md5sums"].splitlines()) == len(files)
        assert f"./usr/share/doc/{package_name}/copyright" in files
        listed[package_name] = set(files)
    assert "./usr/bin/jane" in listed["jane"]
    assert {"./usr/lib/libjane.a", "./usr/include/jane.h", "./usr/lib/pkgconfig/jane.pc"} <= listed[
        "libjane-dev"
    ]
    assert not listed["jane"] & listed["libjane-dev"]


def test_deb_is_read_by_dpkg(packages: Packages, tmp_path: Path, unavailable: Unavailable) -> None:
    dpkg = shutil.which("dpkg-deb") or unavailable("native", "no dpkg-deb")
    for deb in packages.folder.glob("*.deb"):
        subprocess.run([dpkg, "--info", deb], check=True, capture_output=True)
        subprocess.run([dpkg, "--extract", deb, tmp_path], check=True, capture_output=True)
    done = subprocess.run([tmp_path / "usr" / "bin" / "jane", *PROMPT], capture_output=True)
    ours = subprocess.run([packages.compiled / "bin" / "jane", *PROMPT], capture_output=True)
    assert done.stdout == ours.stdout and ours.stdout


def test_deb_of_another_machine(built: Callable[..., Built], tmp_path: Path) -> None:
    """A static program for a Raspberry Pi: arm64, and no dependency."""
    compiled = built(EXAMPLE, "armv8-neon", name="jane")[2]
    package(compiled, tmp_path / "p", ("deb",))
    parts = members(tmp_path / "p" / "jane_0.1.0_arm64.deb")
    (tmp_path / "control.tar.gz").write_bytes(parts["control.tar.gz"])
    control = contents(tmp_path / "control.tar.gz")["./control"].decode()
    assert "Architecture: arm64\n" in control and "Depends" not in control
    program = (compiled / "bin" / "jane").read_bytes()
    assert struct.unpack_from("<H", program, 18) == (183,)  # EM_AARCH64


def test_lintian(
    built: Callable[..., Built],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unavailable: Unavailable,
) -> None:
    """No error in the packages of a static program, given a maintainer and a date."""
    lintian = shutil.which("lintian") or unavailable("armv8-neon", "lintian is not installed")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("DEBEMAIL", "models@debian.org")
    package(built(EXAMPLE, "armv8-neon")[2], tmp_path / "p", ("deb",))
    debs = sorted(map(str, (tmp_path / "p").glob("*.deb")))
    done = subprocess.run([lintian, *debs], capture_output=True, text=True)
    assert len(debs) == 2 and done.returncode == 0, done.stdout
    assert not re.search(r"^E:", done.stdout, re.M)
