"""Folders of photos for the tests, and looks into what became of them."""

from __future__ import annotations

from pathlib import Path

from indexer.store.catalog import read_catalog
from indexer.store.location import IndexFolder
from tests.pictures import SHAPES, photo


def save_photo(path: Path, number: int) -> Path:
    """Photo ``number``, always the same picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(SHAPES[number % len(SHAPES)], size=48, seed=number).save(path)
    return path


def save_photos(folder: Path, count: int, start: int = 0) -> Path:
    """Photos in ``folder`` and its folder ``in here``, names with spaces and accents among them."""
    for number in range(start, start + count):
        save_photo(folder / ("in here" if number % 3 == 0 else "") / f"Ännchen {number:03}.png", number)
    return folder


def index_bytes(index: Path) -> dict[str, bytes]:
    """Every file of an index that a build answers for, the manifest without its time."""
    found = {}
    for path in sorted(index.rglob("*")):
        name = path.relative_to(index).as_posix()
        if path.is_dir() or name in (".lock", "progress.json"):
            continue
        data = path.read_bytes()
        if path.name == "manifest.json":
            data = b"\n".join(line for line in data.splitlines() if b'"created"' not in line)
        found[name] = data
    return found


def catalog(index: Path) -> dict[str, tuple[int, str, int | None, str | None, int | None]]:
    """What the live generation knows: id, status, cluster, segment and row by path."""
    live = IndexFolder(index).current()
    assert live is not None
    found: dict[str, tuple[int, str, int | None, str | None, int | None]] = {}
    for file in read_catalog(index / live / "photos.sqlite"):
        row: tuple[int, str, int] | tuple[None, None, None] = (None, None, None)
        if file.indexed is not None:
            row = (file.indexed.cluster, file.indexed.row.segment, file.indexed.row.number)
        found[file.path] = (file.id, file.status, *row)
    return found
