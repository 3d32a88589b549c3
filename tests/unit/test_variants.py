"""Targets of several CPUs: one layout that all of them read, and mistakes in their files."""

from dataclasses import replace
from pathlib import Path

import pytest

import bitnetc.target
from bitnetc import resources
from bitnetc.compiler import load
from bitnetc.cost import matrix_cost
from bitnetc.errors import BitnetcError
from bitnetc.kernels import KERNELS
from bitnetc.model import ROLES
from bitnetc.plan import SHARERS, plan, plan_json, slice_rows
from bitnetc.target import load_target, target_names

EXAMPLE = Path(__file__).parents[2] / "examples" / "austen" / "model"
SEVERAL = [name for name in target_names() if load_target(name).variants]


def test_there_are_some() -> None:
    assert {"rpi", "x86_64"} <= set(SEVERAL)
    assert "native" not in SEVERAL and not load_target("native").variants


@pytest.mark.parametrize("name", SEVERAL)
def test_every_variant_reads_the_same_layout(name: str) -> None:
    model, target = load(EXAMPLE), load_target(name)
    decided = plan(model, target)
    for group in decided.groups:
        for matrix in group.matrices.values():
            assert [v.target for v in matrix.variants] == [v.name for v in target.variants]
            for chosen, variant in zip(matrix.variants, target.variants, strict=True):
                assert chosen.kernel in variant.kernels
                assert chosen.kernel.layout_name == matrix.kernel.layout_name
                sharers = SHARERS[matrix.role]
                shape = (matrix.padded_rows, matrix.padded_cols)
                density = {chosen.kernel.skips: matrix.density}
                cost = matrix_cost(chosen.kernel, *shape, sharers, variant.cost, density)
                assert chosen.cost == cost
    assert not decided.lut
    stated = plan_json(decided, model)["groups"][0]["matrices"][0]["variants"]
    assert [v["target"] for v in stated] == [v.name for v in target.variants]


@pytest.mark.parametrize("name", SEVERAL)
def test_the_cheapest_layout_over_all_variants_wins(name: str) -> None:
    decided = plan(load(EXAMPLE), load_target(name))
    for matrix in decided.groups[0].matrices.values():
        mean = sum(v.cost.cycles for v in matrix.variants) / len(matrix.variants)
        assert all(c.cycles >= mean for c in matrix.rejected if c.variants)


@pytest.mark.parametrize("name", SEVERAL)
def test_all_variants_count_bits_or_none_does(name: str) -> None:
    """Planes of bits are built once for all of them."""
    model = load(EXAMPLE)
    signs = {r: replace(getattr(model.blocks[0], r), binary=True) for r in ROLES}
    blocks = tuple(replace(block, **signs) for block in model.blocks)
    decided = plan(replace(model, blocks=blocks, activations="signs"), load_target(name))
    assert decided.bits and "act_bits" in decided.memory.buffers
    for matrix in decided.groups[0].matrices.values():
        assert {k.layout_name for k in matrix.kernels} == {"b1_m8k64"}
        assert {k.activation for k in matrix.kernels} == {"bits"}
    assert not plan(replace(model, blocks=blocks), load_target(name)).bits


def test_the_best_variant_first() -> None:
    """A CPU that runs a variant runs all that come after it in the list of a kind."""
    for name in SEVERAL:
        sizes = [len(v.features) for v in load_target(name).variants]
        assert sizes == sorted(sizes, reverse=True)


@pytest.fixture
def targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of targets to add to."""
    for path in resources.TARGETS.glob("*.toml"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(resources, "TARGETS", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("variants", "more", "message"),
    [
        ('["armv8-neom"]', "", 'unknown target "armv8-neom".*armv8-neon'),
        ('["armv8-neon", "x86_64-avx2"]', "", "x86_64-avx2 is not for one CPU of this kind"),
        ('["rpi", "armv8-neon"]', "", "rpi is not for one CPU of this kind"),
        ('["armv8-neon", "armv8-neon"]', "", "armv8-neon is there twice"),
        (
            '["armv8-neon"]',
            '[isa]\nfeatures = ["neon"]\n',
            "features, kernels, cost and cache are those",
        ),
    ],
)
def test_mistakes(variants: str, more: str, message: str, targets: Path) -> None:
    text = f'summary = "x"\ninherits = "_aarch64"\nvariants = {variants}\n{more}'
    (targets / "several.toml").write_text(text)
    with pytest.raises(BitnetcError, match=message):
        load_target("several")


@pytest.mark.parametrize("size", ["-1", "true", "32e3", '"32 KiB"', "16777217"])
def test_a_cache_is_a_number_of_bytes(size: str, targets: Path) -> None:
    (targets / "other.toml").write_text(f'inherits = "armv8-neon"\n[cache]\nl1d = {size}\n')
    with pytest.raises(BitnetcError, match=r"cache.l1d: .* is not a cache's number of bytes"):
        load_target("other")
    (targets / "other.toml").write_text('inherits = "armv8-neon"\n[cache]\nl2 = 1\n')
    with pytest.raises(BitnetcError, match=r"cache.l2: unknown key"):
        load_target("other")


def test_every_system_states_its_cache() -> None:
    """Tiles are cut for the least of the variants' caches, which is where there is a cache."""
    for target in map(load_target, target_names()):
        assert (target.l1d == 0) == target.freestanding
        if target.variants:
            assert target.l1d == min(v.l1d for v in target.variants)
    assert load_target("rpi5").l1d == 2 * load_target("armv8.2-dotprod").l1d


@pytest.mark.parametrize(
    ("kernels", "tile", "l1d", "batch", "rows"),
    [
        (["amx:i2_m32k64"], 128, 49152, 128, 32),  # 16 KiB of 48
        (["amx:i2_m32k64"], 128, 49152, 64, 64),
        (["amx:i2_m32k64"], 128, 49152, 8, 0),  # all fit
        (["avx512vnni:i2_m32k64"], 128, 49152, 128, 64),  # of which 48 would fit: one unit
        (["avx512vnni:i2_m32k64"], 96, 49152, 128, 0),  # not whole units
        (["avx2:i2_m32k64"], 128, 32768, 64, 64),
        (["avx2:i2_m32k64"], 96, 32768, 64, 32),  # equal slices
        (["avx2:i2_m32k64", "avx2:i2_k256"], 128, 32768, 64, 64),
        (["amx:i2_m32k64", "avx512vnni:i2_m32k64", "avx2:i2_m32k64"], 128, 32768, 128, 64),
        (["neondot:i2_m4k64"], 64, 32768, 128, 32),
        (["neon:i2_m4k64"], 64, 32768, 128, 0),  # each sum is written once
        (["avx2:i2_m32k64"], 128, 0, 64, 0),  # no cache is known
    ],
)
def test_slices_fit_the_cache(
    kernels: list[str], tile: int, l1d: int, batch: int, rows: int
) -> None:
    found = slice_rows([KERNELS[k] for k in kernels], tile, l1d, batch)
    assert found == rows and (not found or tile % found == 0)


def test_a_program_for_several_cpus_is_cut_for_all() -> None:
    """Gate and up together; the arena has no more sums than that needs."""
    model = load(EXAMPLE)
    tall = replace(load_target("x86_64"), l1d=2**24)
    for target in (load_target("x86_64"), replace(load_target("x86_64"), l1d=8192), tall):
        decided = plan(model, target)
        for group in decided.groups:
            assert group.matrices["w_gate"].slice == group.matrices["w_up"].slice
            for m in group.matrices.values():
                assert m.slice == 0 or (m.tile % m.slice == 0 and not m.slice % m.kernel.unit)
        stated = plan_json(decided, model)
        assert stated["cache"] == {"l1d": target.l1d}
        found = [m.get("slice", 0) for m in stated["groups"][0]["matrices"]]
        assert {*found, 0} == {*decided.slices, 0}


def test_one_line_adds_a_variant(targets: Path) -> None:
    text = (targets / "rpi.toml").read_text()
    (targets / "more.toml").write_text(text.replace('"armv8-neon"', '"rpi4", "armv8-neon"'))
    decided = plan(load(EXAMPLE), load_target("more"))
    assert [v.target for v in decided.groups[0].matrices["wq"].variants] == [
        "armv8.2-dotprod",
        "rpi4",
        "armv8-neon",
    ]


def test_tables_of_a_base_are_merged_to_the_bottom(targets: Path) -> None:
    """A tuned target need not repeat the figures that it does not change."""
    (targets / "tuned.toml").write_text(
        'inherits = "armv8-neon"\n[cost]\ncycles_per_block = { "neon:i2_m4k64" = 1.0 }\n'
    )
    tuned, base = load_target("tuned"), load_target("armv8-neon")
    assert tuned.base == "armv8-neon" and base.base == ""
    assert tuned.cost.cycles_per_block == base.cost.cycles_per_block | {"neon:i2_m4k64": 1.0}
    assert load_target("x86_64-windows").base == "" and load_target("rpi-zero2").base == "rpi3"


@pytest.mark.parametrize(
    ("more", "best"),
    [
        (set(), "x86_64-avx512"),
        ({"avx512vbmi", "avx512popcnt"}, "x86_64-avx512vbmi"),
        ({"avx512vbmi", "avx512popcnt", "amx"}, "x86_64-amx"),
        ({"amx"}, "x86_64-avx512"),
    ],
)
def test_native_knows_vbmi(more: set[str], best: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"sse41", "avx2", "f16c", "fma", "avx512", "avx512vnni", *more}
    monkeypatch.setattr(bitnetc.target, "host_arch", lambda: "x86_64")
    monkeypatch.setattr(bitnetc.target, "host_features", lambda: here)
    assert load_target("native").name == best
