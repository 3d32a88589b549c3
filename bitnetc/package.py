"""Artifact folder -> packages: source tarball, prebuilt tarball, Yocto layer, Buildroot tree, .deb.

Equal folders give equal bytes wherever they lie: entries are sorted, owned by root, and dated
SOURCE_DATE_EPOCH, or 0 when that is not set.
"""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import struct
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, BinaryIO

from bitnetc.build import program_file
from bitnetc.emit import environment
from bitnetc.errors import BitnetcError
from bitnetc.target import Target, host_arch, load_target

KINDS = ("cmake", "pkgconfig", "yocto", "buildroot", "deb")

# Releases of Yocto from the oldest long-term one that is still maintained.
_SERIES = "scarthgap styhead walnascar whinlatter wrynose blacksail"
# Our name of an architecture -> what Yocto, Buildroot and Debian call it.
_YOCTO = {"x86_64": "x86_64", "aarch64": "aarch64", "arm": "arm", "riscv64": "riscv64"}
_BUILDROOT = {
    "x86_64": ("BR2_x86_64",),
    "aarch64": ("BR2_aarch64",),
    "arm": ("BR2_arm",),
    "riscv64": ("BR2_RISCV_64",),
}
_DEBIAN = {"x86_64": "amd64", "aarch64": "arm64", "arm": "armhf", "riscv64": "riscv64"}
# Features that Buildroot has a symbol for.
_BUILDROOT_FEATURES = {
    "sse41": "BR2_X86_CPU_HAS_SSE4",
    "avx2": "BR2_X86_CPU_HAS_AVX2",
    "avx512": "BR2_X86_CPU_HAS_AVX512",
    "neon32": "BR2_ARM_CPU_HAS_NEON",
    "rvv": "BR2_RISCV_ISA_RVV",
}


@dataclass(frozen=True)
class Board:
    """What a CMake toolchain file says of a board."""

    name: str
    title: str
    arch: str
    features: tuple[str, ...]  # of our targets' features, those that its CPU has
    prefix: str  # of the cross compiler's programs
    processor: str
    flags: str


# Debian's compilers for 32-bit Arm link an Armv7 C library, which a Raspberry Pi 1 cannot run.
_ARM64, _ARM32 = "aarch64-linux-gnu", "arm-linux-gnueabihf"
_A7 = "-mcpu=cortex-a7 -mfpu=neon-vfpv4 -mfloat-abi=hard"
BOARDS = (
    Board("rpi2", "Raspberry Pi 2", "arm", ("neon32",), _ARM32, "armv7l", _A7),
    Board("rpi3", "Raspberry Pi 3 and Zero 2 W", "aarch64", ("neon",), _ARM64, "aarch64",
          "-mcpu=cortex-a53"),
    Board("rpi4", "Raspberry Pi 4", "aarch64", ("neon",), _ARM64, "aarch64", "-mcpu=cortex-a72"),
    Board("rpi5", "Raspberry Pi 5", "aarch64", ("neon", "dotprod"), _ARM64, "aarch64",
          "-mcpu=cortex-a76"),
)  # fmt: skip
_MANIFEST = "manifest.json"
_MARK = "packages.json"  # a folder with this file is one of ours and may be replaced
_LICENCE = "LICENSES/MIT.txt"


@dataclass(frozen=True)
class Product:
    """A compiled folder, its files checked against their hashes."""

    folder: Path
    name: str  # C identifier
    bitnetc: str  # version of bitnetc, and so of the package
    model: str
    target: Target
    sources: tuple[str, ...]  # paths of the bundle

    @property
    def package(self) -> str:
        """The name as packagers write it: an underscore separates name and version there."""
        return self.name.replace("_", "-")

    @property
    def version(self) -> str:
        return self.bitnetc

    @property
    def weights_file(self) -> str | None:
        """The file that the program maps, where it does not hold its weights."""
        path = f"share/{self.name}.weights"
        return path if path in self.sources else None

    @property
    def far(self) -> str | None:
        """The script that says where the linker puts weights of more than it reaches."""
        return f"lib/{self.name}-weights.ld" if "src/weights.ld" in self.sources else None

    @property
    def tarball(self) -> str:
        return f"{self.package}-{self.version}.tar.gz"

    @property
    def arch(self) -> str:
        return host_arch() if self.target.arch == "host" else self.target.arch


Entry = tuple[str, Path | bytes, int]  # path in the archive, content, mode


def package(folder: Path, out: Path, kinds: Iterable[str]) -> list[Path]:
    """Writes the packages of these kinds into `out`, and the source tarball; returns what is new.

    Raises BitnetcError when `folder` is not an unchanged folder of bitnetc's, when `out` holds
    something else, or when the target has no packages of a kind.
    """
    product = read_product(folder)
    chosen = set(kinds)
    _check_destination(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            stage = Path(scratch) / "packages"
            stage.mkdir()
            _write(product, stage, chosen)
            hashes = {str(p.relative_to(stage)): file_hash(p) for p in _files(stage)}
            text = json.dumps({"packages_of": product.name, "files": hashes}, indent=2) + "\n"
            (stage / _MARK).write_text(text)
            if out.exists():
                out.rename(Path(scratch) / "old")
            stage.rename(out)
    except OSError as error:
        raise BitnetcError(f"-o {out}", error.strerror or str(error)) from None
    return sorted(out.iterdir())


def _check_destination(out: Path) -> None:
    """Refuses to replace a file, or a folder that is not one of packages."""
    if out.is_dir():
        if any(out.iterdir()) and not (out / _MARK).is_file():
            raise BitnetcError(
                f"-o {out}", "the folder holds files that are not packages", "name another"
            )
    elif out.exists():
        raise BitnetcError(f"-o {out}", "is a file", "name a folder")


def read_product(folder: Path) -> Product:
    """The folder as a Product. Raises BitnetcError when it is none, or when a file was changed."""
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        hashes: dict[str, str] = manifest["files"]
        header = next(f for f in hashes if re.fullmatch(r"include/[a-z_][a-z0-9_]*\.h", f))
        version, model, target = manifest["bitnetc"], manifest["model"], manifest["target"]
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        raise BitnetcError(
            str(folder), "is not a folder that bitnetc compile wrote", "name its -o folder"
        ) from None
    for file, expected in hashes.items():
        if not (folder / file).is_file():
            raise BitnetcError(str(folder / file), "is missing", "compile the model again")
        if file_hash(folder / file) != expected:
            raise BitnetcError(
                str(folder / file), f"differs from {_MANIFEST}", "compile the model again"
            )
    sources = tuple(sorted((*hashes, _MANIFEST)))
    return Product(folder, Path(header).stem, version, model, load_target(target), sources)


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _write(product: Product, stage: Path, kinds: set[str]) -> None:
    tarball = stage / product.tarball
    root = tarball.name.removesuffix(".tar.gz")
    _tar(tarball, [(f"{root}/{f}", product.folder / f, 0o644) for f in product.sources])
    if kinds & {"cmake", "pkgconfig"}:
        name = f"{root}-{product.target.name}"
        entries = _installed(product, kinds)
        _tar(stage / f"{name}.tar.gz", [(f"{name}/{p}", c, m) for p, c, m in entries])
    if "cmake" in kinds:
        for board in boards(product.target):
            context = {"board": board, "source": root}
            text = _render("toolchains/board.cmake.jinja", context)
            _put(stage / "toolchains" / f"{board.name}.cmake", text)
    if "yocto" in kinds:
        _yocto(product, tarball, stage / f"meta-{product.package}")
    if "buildroot" in kinds:
        _buildroot(product, tarball, stage / f"buildroot-{product.package}")
    if "deb" in kinds:
        _debs(product, stage)


def boards(target: Target) -> list[Board]:
    """The boards that run what is compiled for a target."""
    return [
        board
        for board in BOARDS
        if board.arch == target.arch
        and target.system == "linux"
        and set(target.features) <= set(board.features)
    ]


def _installed(product: Product, kinds: Iterable[str]) -> list[Entry]:
    """What is built: program, library, header, and what finds them."""
    name = product.name
    found: list[Entry] = []
    patterns = [
        (f"bin/{program_file(name, product.target)}", 0o755),
        (f"lib/lib{name}.a", 0o644),
        (f"include/{name}.h", 0o644),
    ]
    patterns += [(path, 0o644) for path in (product.weights_file, product.far) if path]
    if "cmake" in kinds:
        patterns.append((f"lib/cmake/{name}/*.cmake", 0o644))
    if "pkgconfig" in kinds:
        patterns.append((f"lib/pkgconfig/{name}.pc", 0o644))
    for pattern, mode in patterns:
        paths = sorted(product.folder.glob(pattern))
        if not paths:
            raise BitnetcError(
                str(product.folder / pattern), "is missing", "compile the model again"
            )
        found += [(str(p.relative_to(product.folder)), p, mode) for p in paths]
    found.append((f"share/doc/{product.package}/copyright", _copyright(product), 0o644))
    return found


def _tar(path: Path, entries: Iterable[Entry]) -> None:
    """A .tar.gz with its folders as entries, sorted."""
    with open(path, "wb") as file:
        _tar_to(file, entries)


def _tar_to(file: BinaryIO, entries: Iterable[Entry], prefix: str = "") -> None:
    files = {name: (content, mode) for name, content, mode in entries}
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    with (
        gzip.GzipFile("", "wb", 6, file, _epoch()) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name in sorted(folders | set(files)):
            info = tarfile.TarInfo(prefix + name)
            info.mtime = _epoch()
            info.uname = info.gname = "root"
            if name in folders:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
                continue
            content, info.mode = files[name]
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.size = content.stat().st_size
                with open(content, "rb") as source:
                    tar.addfile(info, source)


def _epoch() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not text.isdigit():
        raise BitnetcError("SOURCE_DATE_EPOCH", f'"{text}" is not a number of seconds')
    return int(text)


def _render(template: str, context: dict[str, Any]) -> bytes:
    return environment().get_template(f"package/{template}").render(context).encode()


def _context(product: Product, tarball: Path) -> dict[str, Any]:
    licence = product.folder / _LICENCE
    return {
        "product": product,
        "summary": "Ternary language model as a C library and a program",
        "description": _description(product),
        "tarball_sha256": file_hash(tarball),
        "licence_md5": file_hash(licence, "md5"),
        "licence_sha256": file_hash(licence),
    }


def _description(product: Product) -> str:
    model = re.sub(r"[^A-Za-z0-9 ._+-]", "-", product.model)
    return f"The model {model}, compiled by bitnetc for {product.target.name}."


def _named(names: dict[str, Any], product: Product, system: str) -> Any:
    """A system's name of the architecture; None when any will do."""
    if product.target.arch == "host":
        return None
    if product.target.system != "linux" or product.target.arch not in names:
        raise BitnetcError(system, f"target {product.target.name} is not a Linux machine")
    return names[product.target.arch]


def _yocto(product: Product, tarball: Path, layer: Path) -> None:
    host = _named(_YOCTO, product, "--yocto")
    context = {
        **_context(product, tarball),
        "series": _SERIES,
        "host": f"{host}.*-linux" if host else "",
        "home_paths": home_paths(product),
        "shipped": _beside(product),
    }
    recipe = f"recipes-models/{product.package}"
    _put(layer / "conf/layer.conf", _render("yocto/layer.conf.jinja", context))
    _put(
        layer / recipe / f"{product.package}_{product.version}.bb",
        _render("yocto/recipe.bb.jinja", context),
    )
    _link(tarball, layer / recipe / "files" / tarball.name)
    _put(layer / "README.md", _render("yocto/README.md.jinja", context))
    _put(layer / "COPYING.MIT", (product.folder / _LICENCE).read_bytes())


def _beside(product: Product) -> list[tuple[str, str]]:
    """Package of a recipe, and the file that belongs to it though no default says so."""
    found = []
    if product.weights_file:
        found.append(("${PN}", f"${{datadir}}/{product.name}.weights"))
    if product.far:
        found.append(("${PN}-staticdev", f"${{libdir}}/{product.name}-weights.ld"))
    return found


def home_paths(product: Product) -> list[str]:
    """Home directories that the model's data spells by chance: a vocabulary may hold "/root"."""
    found: set[str] = set()
    for file in ("src/tokenizer.bin", product.weights_file or "src/weights.bin"):
        with open(product.folder / file, "rb") as data:
            tail = b""
            while chunk := data.read(1 << 24):
                words = re.findall(rb"/root|/home/[a-z_][a-z0-9_-]*", tail + chunk)
                found |= {word.decode() for word in words}
                tail = chunk[-64:]
    return sorted(found)


def _buildroot(product: Product, tarball: Path, tree: Path) -> None:
    needs = list(_named(_BUILDROOT, product, "--buildroot") or ())
    needs += [_BUILDROOT_FEATURES[f] for f in product.target.features if f in _BUILDROOT_FEATURES]
    context = {
        **_context(product, tarball),
        "tree": f"BITNETC_{product.name.upper()}",
        "symbol": product.name.upper(),
        "needs": needs,
    }
    folder = tree / "package" / product.package
    for path, template in (
        (tree / "external.desc", "external.desc"),
        (tree / "external.mk", "external.mk"),
        (tree / "Config.in", "tree.Config.in"),
        (folder / "Config.in", "Config.in"),
        (folder / f"{product.package}.mk", "package.mk"),
        (folder / f"{product.package}.hash", "package.hash"),
    ):
        _put(path, _render(f"buildroot/{template}.jinja", context))
    _link(tarball, folder / tarball.name)


def _debs(product: Product, stage: Path) -> None:
    """The program, and beside it what others build with."""
    _named(_DEBIAN, product, "--deb")
    entries = _installed(product, ("cmake", "pkgconfig"))
    program = [e for e in entries if e[0].startswith("bin/") or e[0] == product.weights_file]
    library = [e for e in entries if e[0].startswith(("lib/", "include/"))]
    model = _description(product)
    depends = needed_libc(product.folder / "bin" / product.name)
    _deb(
        product,
        stage,
        product.package,
        program,
        section="misc",
        synopsis=f"ternary language model {product.package}: program",
        description=f"{model} The program writes text from a prompt"
        + ("." if product.weights_file else "; it reads no other file."),
        depends=depends,
        # On purpose: the program depends on nothing.
        overrides="" if depends else f"statically-linked-binary [usr/bin/{product.name}]",
    )
    _deb(
        product,
        stage,
        f"lib{product.package}-dev",
        library,
        section="libdevel",
        synopsis=f"ternary language model {product.package}: library",
        description=f"{model} Static library, header, and files for CMake and pkg-config.",
        depends="",
        overrides="",
    )


def _deb(product: Product, stage: Path, package: str, entries: list[Entry], **fields: str) -> None:
    """One .deb: an ar archive of two tar archives."""
    architecture = _DEBIAN[product.arch]
    name = os.environ.get("DEBFULLNAME", "nobody")
    context = {
        "product": product,
        "package": package,
        "architecture": architecture,
        "maintainer": f"{name} <{os.environ.get('DEBEMAIL', 'nobody@localhost')}>",
        "date": formatdate(_epoch()),
        **fields,
    }
    changes = gzip.compress(_render("debian/changelog.jinja", context), 9, mtime=0)
    documents = f"usr/share/doc/{package}"
    files: list[Entry] = [(f"usr/{path}", content, mode) for path, content, mode in entries]
    files.append((f"{documents}/changelog.gz", changes, 0o644))
    files.append((f"{documents}/copyright", _copyright(product), 0o644))
    if fields["overrides"]:
        line = f"{package}: {fields['overrides']}\n".encode()
        files.append((f"usr/share/lintian/overrides/{package}", line, 0o644))
    context["installed_kib"] = sum(-(-_size(content) // 1024) for _, content, _ in files)
    sums = "".join(f"{_md5(content)}  {path}\n" for path, content, _ in sorted(files, key=_path))
    control = io.BytesIO()
    _tar_to(
        control,
        [
            ("control", _render("debian/control.jinja", context), 0o644),
            ("md5sums", sums.encode(), 0o644),
        ],
        "./",
    )
    with tempfile.TemporaryFile(dir=stage) as data:
        _tar_to(data, files, "./")
        size = data.tell()
        data.seek(0)
        with open(stage / f"{package}_{product.version}_{architecture}.deb", "wb") as deb:
            deb.write(b"!<arch>\n")
            _member(deb, "debian-binary", io.BytesIO(b"2.0\n"), 4)
            control_size = control.tell()
            control.seek(0)
            _member(deb, "control.tar.gz", control, control_size)
            _member(deb, "data.tar.gz", data, size)


def _member(archive: BinaryIO, name: str, content: BinaryIO, size: int) -> None:
    archive.write(f"{name:16}{_epoch():<12}{0:<6}{0:<6}{'100644':8}{size:<10}`\n".encode())
    shutil.copyfileobj(content, archive)
    archive.write(b"\n" * (size % 2))


def _path(entry: Entry) -> str:
    return entry[0]


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _md5(content: Path | bytes) -> str:
    if isinstance(content, Path):
        return file_hash(content, "md5")
    return hashlib.md5(content).hexdigest()


def needed_libc(program: Path) -> str:
    """Debian's dependency of an ELF program: empty when it is static."""
    data = program.read_bytes()
    loader = _interpreter(data)
    if not loader:
        return ""
    if b"musl" in loader:
        return "musl"
    versions = {tuple(map(int, v)) for v in re.findall(rb"\0GLIBC_(\d+)\.(\d+)", data)}
    return "libc6 (>= {}.{})".format(*max(versions, default=(2, 17)))


def _interpreter(elf: bytes) -> bytes:
    """The dynamic loader that an ELF file names."""
    wide = elf[4:5] == b"\2"
    at, head, entry = (0x20, "<Q", 0x36) if wide else (0x1C, "<I", 0x2A)
    (table,) = struct.unpack_from(head, elf, at)
    size, count = struct.unpack_from("<HH", elf, entry)
    for i in range(count):
        place = table + i * size
        (kind,) = struct.unpack_from("<I", elf, place)
        if kind == 3:  # PT_INTERP
            offset, length = (
                struct.unpack_from("<8xQ16xQ", elf, place)
                if wide
                else struct.unpack_from("<4xI8xI", elf, place)
            )
            return elf[offset : offset + length]
    return b""


def _copyright(product: Product) -> bytes:
    text = (product.folder / _LICENCE).read_text()
    lines = (f" {line}" if line.strip() else " ." for line in text.rstrip("\n").splitlines())
    context = {"product": product, "licence": "\n".join(lines)}
    return _render("debian/copyright.jinja", context)


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _link(source: Path, path: Path) -> None:
    """The same file again; a copy where the file system has no hard links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())
