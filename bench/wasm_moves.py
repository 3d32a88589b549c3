"""A WebAssembly module in which what only moves or names a value costs two units of fuel.

Behind each local.get, local.set, local.tee, global.get and constant comes `i32.const 0, drop`, of
which the first costs one unit and the second none: the fuel that a run takes beyond the original's
is the number of such instructions executed.
"""

_MOVES = frozenset([0x20, 0x21, 0x22, 0x23, 0x41, 0x42, 0x43, 0x44])
_IDLE = b"\x41\x00\x1a"  # i32.const 0, drop


def with_moves_twice(module: bytes) -> bytes:
    out, at = bytearray(module[:8]), 8
    while at < len(module):
        kind = module[at]
        size, begin = _leb(module, at + 1)
        body = module[begin : begin + size]
        if kind == 10:
            body = _code(body)
        out += bytes([kind]) + _unsigned(len(body)) + body
        at = begin + size
    return bytes(out)


def _code(section: bytes) -> bytes:
    count, at = _leb(section, 0)
    out = bytearray(_unsigned(count))
    for _ in range(count):
        size, begin = _leb(section, at)
        body = _body(section[begin : begin + size])
        out += _unsigned(len(body)) + body
        at = begin + size
    return bytes(out)


def _body(body: bytes) -> bytes:
    groups, at = _leb(body, 0)
    for _ in range(groups):
        _, at = _leb(body, at)
        at += 1
    out = bytearray(body[:at])
    while at < len(body):
        end, moves = _instruction(body, at)
        out += body[at:end]
        if moves:
            out += _IDLE
        at = end
    return bytes(out)


def _instruction(code: bytes, at: int) -> tuple[int, bool]:
    """Where the instruction at `at` ends, and whether it only moves or names a value."""
    op = code[at]
    end = at + 1
    if op in (0x02, 0x03, 0x04):  # block, loop, if: a type of one byte, or an index
        return _skip(code, end), False
    if op == 0x0E:  # br_table
        count, end = _leb(code, end)
        for _ in range(count + 1):
            end = _skip(code, end)
        return end, False
    if op == 0x11:  # call_indirect
        return _skip(code, _skip(code, end)), False
    if op in (0x0C, 0x0D, 0x10, 0x20, 0x21, 0x22, 0x23, 0x24, 0x41, 0x42, 0x3F, 0x40):
        return _skip(code, end), op in _MOVES
    if 0x28 <= op <= 0x3E:  # loads and stores
        return _skip(code, _skip(code, end)), False
    if op in (0x43, 0x44):
        return end + (4 if op == 0x43 else 8), True
    if op == 0xFC:
        kind, end = _leb(code, end)
        for _ in range({8: 2, 9: 1, 10: 2, 11: 1, 12: 2, 13: 1, 14: 2}.get(kind, 0)):
            end = _skip(code, end)
        return end, False
    if op == 0xFD:
        return _vector(code, end)
    return end, False


def _vector(code: bytes, at: int) -> tuple[int, bool]:
    kind, at = _leb(code, at)
    if kind <= 11 or kind in (92, 93):  # loads and stores
        return _skip(code, _skip(code, at)), False
    if kind in (12, 13):  # a constant, a shuffle
        return at + 16, kind == 12
    if 21 <= kind <= 34:  # lanes
        return at + 1, False
    if 84 <= kind <= 91:  # lanes of memory
        return _skip(code, _skip(code, at)) + 1, False
    return at, False


def _leb(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _skip(data: bytes, at: int) -> int:
    return _leb(data, at)[1]


def _unsigned(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)
