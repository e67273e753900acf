"""Damages to an index: of its bytes, its arrays, its catalog."""

import json
from pathlib import Path

from sketch_search.indexer.store.files import hash_file


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def sign(index: Path) -> None:
    """Make the manifest agree with the files as they are now, as a faulty writer would."""
    path = index / "g000001" / "manifest.json"
    manifest = json.loads(path.read_text())
    places = [(index / "g000001", manifest)] + [(index / "segments" / s["id"], s) for s in manifest["segments"]]
    for folder, holder in places:
        for entry in holder["files"]:
            entry |= {"size": (folder / entry["name"]).stat().st_size, "sha256": hash_file(folder / entry["name"])}
    path.write_text(json.dumps(manifest))
