"""Names of one thing, such as sofa and couch, in the optional data's list of class names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.errors import ModelError

NAMES = Path("data") / "class_words.txt"
# One row for each name. The names of one thing of the list's source were embedded together, and have equal rows.
VECTORS = Path("data") / "class_words_clip_text.npy"


def read_synonyms(folder: Path) -> tuple[tuple[str, ...], ...]:
    """The names of each thing that has several, in the order of the list; none where the data has no such list.

    Raises ModelError where the list and its vectors do not belong together.
    """
    names, vectors = folder / NAMES, folder / VECTORS
    if not names.is_file() or not vectors.is_file():
        return ()
    try:
        lines = names.read_text(encoding="utf-8").splitlines()
        rows = np.load(vectors, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{names} or its vectors cannot be read ({error}); unpack the data anew") from error
    if rows.ndim != 2 or len(rows) != len(lines):
        raise ModelError(f"{names} has {len(lines)} names, and {vectors.name} has other rows; unpack the data anew")
    things: dict[bytes, list[str]] = {}
    for name, row in zip(lines, rows, strict=True):
        things.setdefault(row.tobytes(), []).append(name.replace("_", " "))
    return tuple(tuple(same) for same in things.values() if len(same) > 1)
