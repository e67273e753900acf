"""Damages to an index: of its bytes, its arrays, its catalog."""

import json
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sketch_search.indexer.store.files import hash_file


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


DAMAGES: dict[str, Callable[[Path], None]] = {"a flipped bit": flip, "cut short": shorten, "gone": Path.unlink}


def make_endless(file: Path, table: str) -> None:
    """Adds pages to a database each of which has the next one 300 times below it, and puts them atop a table."""
    with closing(sqlite3.connect(file)) as database:
        (top,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    pages = bytearray(file.read_bytes())
    below = len(pages) // size + 1
    pages += pages[(top - 1) * size : top * size]
    for _ in range(12):
        cells = struct.pack(">IB", below, 1) * 300
        head = struct.pack(">BHHHBI", 5, 0, 300, size - len(cells), 0, below)
        head += struct.pack(">300H", *range(size - len(cells), size, 5))
        pages += head.ljust(size - len(cells), b"\0") + cells
        below = len(pages) // size
    pages[(top - 1) * size : top * size] = pages[-size:]
    pages[28:32] = struct.pack(">I", below)
    file.write_bytes(pages)


def sign(index: Path) -> None:
    """Make the manifest agree with the files as they are now, as a faulty writer would."""
    path = index / "g000001" / "manifest.json"
    manifest = json.loads(path.read_text())
    places = [(index / "g000001", manifest)] + [(index / "segments" / s["id"], s) for s in manifest["segments"]]
    for folder, holder in places:
        for entry in holder["files"]:
            entry |= {"size": (folder / entry["name"]).stat().st_size, "sha256": hash_file(folder / entry["name"])}
    path.write_text(json.dumps(manifest))
