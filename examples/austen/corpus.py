"""Builds the training text: Jane Austen's six novels and the King James Bible.

Both texts are in the public domain and both are packaged by Debian, so the whole corpus comes
from `apt-get download` and needs no web site:

    r-cran-janeaustenr   the six novels, as strings inside an R database
    bible-kjv-text       the King James text, in a compressed form of its own
    bible-kjv            the `bible` program, which prints that text

Usage:
    python corpus.py                      # download, clean, print what came out
    python corpus.py --debs DIR           # use packages that are already in DIR
    python corpus.py --out corpus.jsonl   # also write one JSON document per line

The result is a list of documents, one per chapter, in a fixed order. Nothing in it is random.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

PACKAGES = ("r-cran-janeaustenr", "bible-kjv", "bible-kjv-text")

# Every fiftieth chapter of each source is kept back for validation, starting at this one.
HOLDOUT_EVERY = 50
HOLDOUT_FIRST = 25


@dataclass(frozen=True)
class Document:
    """One chapter. `source` is "austen" or "bible"; `held_out` marks the validation set."""

    source: str
    title: str
    text: str
    held_out: bool


# ---------------------------------------------------------------- Jane Austen


def r_database_strings(data: bytes) -> list[list[str]]:
    """Returns the strings of every record in an R lazy-load database (`Rdata.rdb`).

    The file is a run of records, each a big-endian u32 (the unpacked size) and a zlib stream. In
    the unpacked XDR form a string is the type word 00 04 00 09, a big-endian i32 length (negative
    for NA) and that many bytes. That is all of R's format that a table of text lines needs.
    """
    records = []
    pos = 0
    while pos < len(data):
        (size,) = struct.unpack_from(">I", data, pos)
        inflate = zlib.decompressobj()
        raw = inflate.decompress(data[pos + 4 :])
        if len(raw) != size:
            raise ValueError(f"R database record at {pos}: {len(raw)} bytes, expected {size}")
        pos = len(data) - len(inflate.unused_data)

        lines = []
        at = raw.find(b"\x00\x04\x00\x09")
        while at >= 0:
            (length,) = struct.unpack_from(">i", raw, at + 4)
            end = at + 8 + max(length, 0)
            lines.append(raw[at + 8 : end].decode("utf-8"))
            at = raw.find(b"\x00\x04\x00\x09", end)
        records.append(lines)
    return records


CHAPTER_LINE = re.compile(r"(?:CHAPTER|Chapter) (?:[IVXLC]+|\d+)\s*$")
VOLUME_LINE = re.compile(r"VOLUME [IVX]+\s*$")
END_LINE = re.compile(r"\s*(?:THE END|FINIS|Finis|A NOTE ON THE TEXT)\s*$")


def tidy(paragraph: str) -> str:
    """Collapses white space and drops the marks that stand for italics and notes in print."""
    return re.sub(r"\s+", " ", re.sub(r"[_*]", "", paragraph)).strip()


def novel_chapters(lines: list[str]) -> list[str]:
    """Splits one novel (its printed lines) into chapters of natural, unwrapped paragraphs.

    Everything before the first chapter line (title, year, advertisement) and everything from the
    closing line on is left out.
    """
    chapters: list[list[str]] = []
    paragraph: list[str] = []

    def close_paragraph() -> None:
        text = tidy(" ".join(paragraph))
        if text and chapters:
            chapters[-1].append(text)
        paragraph.clear()

    for line in lines:
        if CHAPTER_LINE.match(line):
            close_paragraph()
            chapters.append([])
        elif END_LINE.match(line):
            break
        elif not line.strip() or VOLUME_LINE.match(line):
            close_paragraph()
        else:
            paragraph.append(line)
    close_paragraph()
    return ["\n\n".join(chapter) for chapter in chapters if chapter]


def austen(root: Path) -> list[tuple[str, str]]:
    """(title, text) of every chapter of the six novels under an unpacked package tree."""
    (database,) = root.glob("usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
    out = []
    for lines in r_database_strings(database.read_bytes()):
        novel = lines[0].strip().title()
        for number, text in enumerate(novel_chapters(lines), 1):
            out.append((f"{novel}, chapter {number}", text))
    return out


# ---------------------------------------------------------------- King James Bible

HEADING = re.compile(r"(?:[123] )?[A-Z][A-Za-z ]* \d+$")
VERSE = re.compile(r"  (\d+) (.*)$")


def bible(root: Path) -> list[tuple[str, str]]:
    """(title, text) of every chapter of the Bible, one verse per line, without the numbers.

    The program is taken from the unpacked tree if it is there (it may be built for another
    machine's processor, in which case one on the PATH serves as well).
    """
    program = root / "usr/bin/bible"
    command = str(program) if program.exists() else shutil.which("bible")
    if command is None:
        raise SystemExit("corpus.py: the `bible` program is missing (Debian package bible-kjv)")
    printed = subprocess.run(
        [command, "-p", str(root / "usr/lib"), "Gen1:1-Rev22:21"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    out: list[tuple[str, list[str]]] = []
    for line in printed.splitlines():
        verse = VERSE.match(line)
        if verse:
            out[-1][1].append(verse[2])
        elif HEADING.match(line):
            out.append((line, []))
        elif line.strip():
            out[-1][1][-1] += " " + line
    return [(title, "\n".join(tidy(v) for v in verses)) for title, verses in out]


# ---------------------------------------------------------------- the whole corpus


def load(debs: Path | None = None) -> list[Document]:
    """Returns every chapter, novels first, in a fixed order.

    `debs` is a folder that holds the Debian packages; without one they are downloaded.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if debs is None:
            debs = Path(scratch) / "debs"
            debs.mkdir()
            subprocess.run(["apt-get", "download", *PACKAGES], cwd=debs, check=True)
        root = Path(scratch) / "root"
        for name in PACKAGES:
            for deb in sorted(debs.glob(f"{name}_*.deb")):
                subprocess.run(["dpkg-deb", "-x", str(deb), str(root)], check=True)

        documents = []
        for source, chapters in (("austen", austen(root)), ("bible", bible(root))):
            for i, (title, text) in enumerate(chapters):
                held_out = i % HOLDOUT_EVERY == HOLDOUT_FIRST
                documents.append(Document(source, title, text, held_out))
    return documents


def main() -> None:
    """Command line: see the top of the file."""
    parser = argparse.ArgumentParser(description="Build the Austen and King James corpus.")
    parser.add_argument("--debs", type=Path, help="folder of already downloaded packages")
    parser.add_argument("--out", type=Path, help="write the documents here, one JSON per line")
    args = parser.parse_args()

    documents = load(args.debs)
    for source in ("austen", "bible"):
        for held_out in (False, True):
            texts = [d.text for d in documents if (d.source, d.held_out) == (source, held_out)]
            part = "validation" if held_out else "training"
            size = sum(len(t.encode()) for t in texts)
            print(f"{source:8s} {part:10s} {len(texts):5d} chapters {size:9,d} bytes")
    if args.out:
        with args.out.open("w", encoding="utf-8") as file:
            for document in documents:
                file.write(json.dumps(asdict(document)) + "\n")


if __name__ == "__main__":
    main()
