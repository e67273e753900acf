"""Damages to an index: of its bytes, its arrays, its catalog."""

import json
from pathlib import Path

from sketch_search.indexer.store.files import hash_file
from sketch_search.indexer.store.generation import current_generation
from sketch_search.indexer.store.location import IndexFolder


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def make_older(index: Path) -> Path:
    """Makes an index one of format 13, without boxes. Returns the folder of its generation."""
    folder = current_generation(IndexFolder(index)).path
    (folder / "boxes.npy").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    files = [entry for entry in manifest["files"] if entry["name"] != "boxes.npy"]
    for name in ("detector", "unseen", "computed"):
        del manifest[name]
    (folder / "manifest.json").write_text(json.dumps(manifest | {"files": files, "format_version": 13}))
    return folder


def sign(index: Path) -> None:
    """Make the manifest agree with the files as they are now, as a faulty writer would."""
    path = index / "g000001" / "manifest.json"
    manifest = json.loads(path.read_text())
    places = [(index / "g000001", manifest)] + [(index / "segments" / s["id"], s) for s in manifest["segments"]]
    for folder, holder in places:
        for entry in holder["files"]:
            entry |= {"size": (folder / entry["name"]).stat().st_size, "sha256": hash_file(folder / entry["name"])}
    path.write_text(json.dumps(manifest))
