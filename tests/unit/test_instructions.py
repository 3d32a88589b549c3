"""bench/instructions.py: what it counts, on programs whose instructions are known."""

import sys
from pathlib import Path
from typing import Any

import pytest
import wasmtime

BENCH = Path(__file__).parents[2] / "bench"
sys.path[:0] = [str(BENCH)]

from instructions import Vectors  # noqa: E402
from wasm_moves import with_moves_twice  # noqa: E402

# Constants, loads, lanes, a shuffle, a table of branches and a call: each ends where it should.
MODULE = """
(module
  (memory 1)
  (func $sum (param i32) (result i32) (local i64 v128)
    (local.set 2 (v128.const i32x4 1 2 3 4))
    (local.set 2 (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 31 (local.get 2) (local.get 2)))
    (v128.store offset=300 (i32.const 16) (local.get 2))
    (local.set 2 (v128.load8_lane offset=2 5 (i32.const 1000) (local.get 2)))
    (local.set 1 (i64.const -1234567890123))
    (drop (f64.add (f64.const 1) (f64.const 2)))
    (block (block (block (br_table 0 1 2 (local.get 0)))))
    (memory.fill (i32.const 0) (i32.const 1) (i32.const 8))
    (i32x4.extract_lane 3 (local.get 2)))
  (func (export "run") (result i32) (call $sum (i32.const 1))))
"""


def spent(module: bytes) -> tuple[int, int]:
    """What "run" gives, and its fuel."""
    config = wasmtime.Config()
    config.consume_fuel = True
    store = wasmtime.Store(wasmtime.Engine(config))
    store.set_fuel(10**6)
    instance = wasmtime.Instance(store, wasmtime.Module(store.engine, module), [])
    run: Any = instance.exports(store)["run"]
    before = store.get_fuel()
    return run(store), before - store.get_fuel()


def test_moves_are_counted_once_more() -> None:
    plain = bytes(wasmtime.wat2wasm(MODULE))
    value, fuel = spent(plain)
    again, more = spent(with_moves_twice(plain))
    moves = MODULE.count("local.get") + MODULE.count("local.set") + MODULE.count(".const")
    assert (value, more - fuel) == (again, moves)


def vsetvli(rd: int, rs1: int, vtype: int) -> int:
    return vtype << 20 | rs1 << 15 | 7 << 12 | rd << 7 | 0x57


@pytest.mark.parametrize(
    ("bits", "wanted", "registers"), [(128, 64, (2, 4)), (512, 64, (1, 2)), (1024, 256, (2, 4))]
)
def test_registers_that_a_vector_instruction_fills(
    bits: int, wanted: int, registers: tuple[int, int]
) -> None:
    vector = Vectors(bits)
    load = 0x02008007  # vle8.v v0, (x1)
    widen = 0x3F << 26 | 1 << 25 | 2 << 12 | 0x57  # vwmaccsu.vv
    assert vector.registers(wanted << 20 | 10 << 7 | 0x13) == 1  # li a0, wanted
    assert vector.registers(vsetvli(11, 10, 0b000_001)) == 1  # bytes in groups of two registers
    assert vector.registers(load) == registers[0]
    assert vector.registers(widen) == registers[1]
    assert vector.registers(0x00B50533) == 1  # add a0, a0, a1: no constant from here on
    vector.registers(vsetvli(0, 10, 0b000_001))
    assert vector.registers(load) == 2
