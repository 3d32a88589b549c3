"""ELF files with room for weights, which are put in after linking.

An assembler holds the weights in memory, GNU ld too, and lld maps them twice. Here all three see a
section without content (SHT_NOBITS) that the linker gives addresses and a segment of its own;
`fill` appends the content to the file and says in both headers where it is. That takes a buffer.

Linux maps a file in pages of 2 MiB by itself where its cache holds such pages and the address lies
in one as the place in the file does. Its cache holds them where the file was written in pieces that
are whole ones (ext4 since 6.16, XFS since 5.18), so that weights lie and are written like that:
reading them then takes few translations of addresses, which otherwise depends on luck.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_PROGBITS, _NOBITS = 1, 8  # types of sections
_LOAD = 1  # type of segments
_HUGE_PAGE = 1 << 21
PIECE = 2 * _HUGE_PAGE  # of a file, written at a time

# An archive: its first bytes, then members, each behind a header of 60 bytes.
_ARCHIVE, _MEMBER = b"!<arch>\n", 60
_MOST_MEMBER = 10**10 - 1  # ten decimal digits

Wrote = Callable[[int], None]  # takes a number of bytes that were written


@dataclass(frozen=True)
class _Section:
    header: int  # where its header is in the file
    name: int  # where its name is
    type: int
    address: int
    bytes: int
    align: int


@dataclass(frozen=True)
class Room:
    """A section without content, and what of the file says so."""

    path: Path
    content: int  # where it goes
    size: int
    patches: tuple[tuple[int, bytes], ...]  # places in the file and what belongs there


def room(path: Path, section: str, size: int, named: str) -> Room | None:
    """The room for `size` bytes in section `section` of a program, shared library or archive.

    named: what the section is called where a linker reads it, of as many letters. None when the
    file has no such room: it is no little-endian ELF file of 64 bits, its last member is none, or
    the linker did not give the section a segment.
    """
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = _last_member(file, end)
        try:
            return None if start is None else _room(file, path, start, end, section, size, named)
        except (struct.error, ValueError):  # ends too early, or says so
            return None


def fill(room: Room, content: Path, wrote: Wrote) -> None:
    """Puts the file `content` into the room. Raises OSError."""
    with open(room.path, "r+b") as file, open(content, "rb") as source:
        file.seek(room.content)
        at = room.content
        while chunk := source.read(PIECE - at % PIECE):
            file.write(chunk)
            at += len(chunk)
            wrote(len(chunk))
        for at, raw in room.patches:
            file.seek(at)
            file.write(raw)


def _room(
    file: BinaryIO, path: Path, start: int, end: int, section: str, size: int, named: str
) -> Room | None:
    if _read(file, start, 6) != b"\x7fELF\x02\x01":
        return None
    found = _sections(file, start).get(section.encode())
    if found is None or found.type != _NOBITS or found.bytes != size:
        return None
    patches: list[tuple[int, bytes]] = []
    align = max(found.align, 1)
    at = -(-(end - start) // align) * align
    segments = _segments(file, start)
    if segments:
        # Pages are mapped as they lie in the file: offset and address agree within one, and if the
        # address is chosen when the program starts, it is chosen for that.
        own = [s for s in segments if s[1][2] == found.address and s[1][4:6] == (0, size)]
        if len(own) != 1:
            return None
        header, (_, _, address, _, _, _, page) = own[0]
        page = max(page, _HUGE_PAGE)
        at = end - start + (address - (end - start)) % page
        patches.append((header + 8, struct.pack("<Q", at)))
        patches.append((header + 32, struct.pack("<Q", size)))
        patches.append((header + 48, struct.pack("<Q", page)))
    patches.append((found.header + 4, struct.pack("<I", _PROGBITS)))
    patches.append((found.header + 24, struct.pack("<Q", at)))
    content = start + at
    if start:
        length = at + size
        if length > _MOST_MEMBER:
            return None
        patches.append((start - _MEMBER + 48, str(length).ljust(10).encode()))
        patches += [(content + size, b"\n")] * (length % 2)
        patches.append((found.name, named.encode()))
    return Room(path, content, size, tuple(patches))


def _last_member(file: BinaryIO, end: int) -> int | None:
    """Where an archive's last member starts; 0 for what is no archive."""
    if _read(file, 0, len(_ARCHIVE)) != _ARCHIVE:
        return 0
    at, start = len(_ARCHIVE), None
    while at + _MEMBER <= end:
        header = _read(file, at, _MEMBER)
        digits = header[48:58].strip()
        if header[58:] != b"`\n" or not digits.isdigit():
            return None
        start = at + _MEMBER
        at = start + int(digits) + int(digits) % 2
    return start if at == end else None


def _sections(file: BinaryIO, start: int) -> dict[bytes, _Section]:
    """The sections of the ELF file that starts there."""
    table, size, count, names = struct.unpack("<Q10x3H", _read(file, start + 40, 24))
    if not names < count or size < 64:
        return {}
    raw = [(at := start + table + i * size, _read(file, at, 64)) for i in range(count)]
    strings, length = struct.unpack_from("<QQ", raw[names][1], 24)
    text = _read(file, start + strings, length)
    found: dict[bytes, _Section] = {}
    for at, header in raw:
        name, kind, _, address, _, extent, _, _, align = struct.unpack_from("<IIQQQQIIQ", header)
        end = text.index(b"\0", name)
        place = start + strings + name
        found[text[name:end]] = _Section(at, place, kind, address, extent, align)
    return found


def _segments(file: BinaryIO, start: int) -> list[tuple[int, tuple[int, ...]]]:
    """Where the header of each loaded segment is, and type with flags, offset, address, physical
    address, bytes in the file, bytes in memory, alignment. None of them in an object file."""
    (table,) = struct.unpack("<Q", _read(file, start + 32, 8))
    size, count = struct.unpack("<HH", _read(file, start + 54, 4))
    found = []
    for i in range(count):
        at = start + table + i * size
        header = struct.unpack("<7Q", _read(file, at, 56))
        if header[0] & 0xFFFFFFFF == _LOAD:
            found.append((at, header))
    return found


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)
