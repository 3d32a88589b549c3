"""Packages of a folder that looks compiled: names, archives, refusals."""

import gzip
import hashlib
import io
import json
import re
import tarfile
from pathlib import Path, PurePath

import pytest

from bitnetc import resources
from bitnetc.build import program_file
from bitnetc.errors import BitnetcError
from bitnetc.package import home_paths, package, read_product
from bitnetc.target import load_target, target_names


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    return write_compiled(tmp_path / "out", "tiny_2b", "armv8-neon")


def write_compiled(folder: Path, name: str, target: str) -> Path:
    """A folder with the files that packages look at."""
    files = {
        "CMakeLists.txt": b"project()\n",
        f"include/{name}.h": b"/* */\n",
        "src/tokenizer.bin": b"\0/root\0truth/home/alex\0",
        "src/weights.bin": bytes(1000),
        "LICENSES/MIT.txt": resources.LICENSE.read_bytes(),
    }
    built = {
        f"bin/{program_file(name, load_target(target))}": b"\x7fELF\2" + bytes(100),
        f"lib/lib{name}.a": b"!<arch>\n",
        f"lib/cmake/{name}/{name}Config.cmake": b"",
        f"lib/pkgconfig/{name}.pc": b"",
    }
    for path, content in (files | built).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    manifest = {
        "bitnetc": "0.1.0",
        "model": 'Tiny "2B" ${HOME}',
        "target": target,
        "files": {path: hashlib.sha256(content).hexdigest() for path, content in files.items()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_names(compiled: Path) -> None:
    product = read_product(compiled)
    assert (product.name, product.package, product.version) == ("tiny_2b", "tiny-2b", "0.1.0")
    assert product.tarball == "tiny-2b-0.1.0.tar.gz"
    assert product.target.name == "armv8-neon"
    assert home_paths(product) == ["/home/alex", "/root"]


def test_source_tarball(compiled: Path, tmp_path: Path) -> None:
    """Sorted, of root, of no time; sources only."""
    assert [p.name for p in package(compiled, tmp_path / "p", ())] == [
        "packages.json",
        "tiny-2b-0.1.0.tar.gz",
    ]
    data = (tmp_path / "p" / "tiny-2b-0.1.0.tar.gz").read_bytes()
    assert data[3] == 0 and data[4:8] == bytes(4)  # no name and no time in the gzip header
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as tar:
        members = tar.getmembers()
    names = [m.name for m in members]
    assert names == sorted(names) and names[0] == "tiny-2b-0.1.0"
    assert "tiny-2b-0.1.0/src/weights.bin" in names and "tiny-2b-0.1.0/manifest.json" in names
    assert not any("/bin/" in n or "/lib/" in n for n in names)
    assert {(m.uid, m.gid, m.uname, m.mtime) for m in members} == {(0, 0, "root", 0)}


def test_source_date_epoch(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    package(compiled, tmp_path / "p", ())
    with tarfile.open(tmp_path / "p" / "tiny-2b-0.1.0.tar.gz") as tar:
        assert {m.mtime for m in tar.getmembers()} == {1700000000}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(BitnetcError, match="SOURCE_DATE_EPOCH"):
        package(compiled, tmp_path / "p", ())


def test_text_of_the_checkpoint_stays_text(compiled: Path, tmp_path: Path) -> None:
    """A model's name goes into files that shells, make and bitbake expand."""
    package(compiled, tmp_path / "p", ("yocto", "buildroot"))
    recipe = next((tmp_path / "p").rglob("*.bb")).read_text()
    assert "Tiny -2B- --HOME-" in recipe
    assert 'OEQA_BUILDPATHS_SKIP = "/home/alex /root"' in recipe


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("rm manifest.json", "not a folder that bitnetc"),
        ("manifest.json []", "not a folder that bitnetc"),
        ("manifest.json {", "not a folder that bitnetc"),
        ("rm src/weights.bin", "weights.bin: is missing"),
        ("src/weights.bin x", "weights.bin: differs"),
        ("rm lib/libtiny_2b.a", "libtiny_2b.a: is missing"),
    ],
)
def test_refusals(edit: str, said: str, compiled: Path, tmp_path: Path) -> None:
    first, second = edit.split()
    if first == "rm":
        (compiled / second).unlink()
    else:
        (compiled / first).write_text(second)
    with pytest.raises(BitnetcError, match=said):
        package(compiled, tmp_path / "p", ("cmake",))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_refuses_what_is_not_compiled(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere", resources.LICENSE):
        with pytest.raises(BitnetcError, match="not a folder that bitnetc"):
            package(folder, tmp_path / "p", ())


def test_destination(compiled: Path, tmp_path: Path) -> None:
    """Older packages are replaced; a compiled folder, or anything else, is not."""
    package(compiled, tmp_path / "p", ("yocto",))
    package(compiled, tmp_path / "p", ())
    assert not list((tmp_path / "p").rglob("*.bb"))
    with pytest.raises(BitnetcError, match="are not packages"):
        package(compiled, compiled, ())
    with pytest.raises(BitnetcError, match="is a file"):
        package(compiled, compiled / "CMakeLists.txt", ())


@pytest.mark.parametrize("target", target_names())
def test_every_target(target: str, tmp_path: Path) -> None:
    """Each Linux target has packages, which ask for the machine that its kernels need."""
    compiled = write_compiled(tmp_path / "out", "tiny", target)
    if load_target(target).system != "linux":
        with pytest.raises(BitnetcError, match="not a Linux machine"):
            package(compiled, tmp_path / "p", ("deb",))
        package(compiled, tmp_path / "p", ("cmake",))
        with tarfile.open(next((tmp_path / "p").glob(f"*-{target}.tar.gz"))) as tar:
            assert any(PurePath(name).stem == "tiny" for name in tar.getnames() if "/bin/" in name)
        return
    package(compiled, tmp_path / "p", ("yocto", "buildroot", "deb"))
    arch = read_product(compiled).arch
    debian = {"aarch64": "arm64", "x86_64": "amd64", "arm": "armhf", "riscv64": "riscv64"}[arch]
    assert {p.name for p in (tmp_path / "p").glob("*.deb")} == {
        f"tiny_0.1.0_{debian}.deb",
        f"libtiny-dev_0.1.0_{debian}.deb",
    }
    needs = set(
        re.findall(r"BR2_\w+", (next((tmp_path / "p").rglob("tiny/Config.in"))).read_text())
    )
    for feature, symbol in (
        ("avx2", "BR2_X86_CPU_HAS_AVX2"),
        ("sse41", "BR2_X86_CPU_HAS_SSE4"),
        ("neon32", "BR2_ARM_CPU_HAS_NEON"),
        ("rvv", "BR2_RISCV_ISA_RVV"),
    ):
        assert (symbol in needs) == (feature in load_target(target).features)
    host = re.search(r'COMPATIBLE_HOST = "(.*)"', next((tmp_path / "p").rglob("*.bb")).read_text())
    assert (host is None) == (target == "scalar")
    assert host is None or re.match(host[1], f"{arch}-poky-linux")
