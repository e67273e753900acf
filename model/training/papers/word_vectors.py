"""Reads vectors of words, from a word2vec file of the user or the stand-in that comes with the optional data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from sketch_search.model.errors import ModelError
from sketch_search.model.training.corpus import data_folder, rows_by_label
from sketch_search.model.words import Names, spelling

# A file with vectors of CLIP's text tower for 2,301 names. It is called a stand-in because it is no word2vec.
STAND_IN = "class_words_clip_text.npy"
# The most frequent words of a word2vec file that are read. All of the large public files' would not fit into memory.
MOST_WORDS = 500_000


@dataclass(frozen=True)
class WordVectors:
    """Words of a file, in its order, with a vector each, (n, d) float32. name: of the file, for messages."""

    name: str
    words: tuple[str, ...]
    vectors: torch.Tensor

    def things(self) -> list[list[int]]:
        """Finds the rows of each thing: several names of one thing have equal vectors in the stand-in."""
        return list(rows_by_label(row.tobytes() for row in self.vectors.numpy()).values())

    def synonyms(self) -> list[Names]:
        """Returns the names of each thing that has several."""
        return [tuple(self.words[row].replace("_", " ") for row in rows) for rows in self.things() if len(rows) > 1]


def read_word_vectors(path: Path | None) -> WordVectors:
    """Reads a word2vec file, a .npy with a .txt of words, or, for None, the stand-in. Raises ModelError."""
    if path is None:
        try:
            folder = data_folder() / "data"
        except ModelError as error:
            raise ModelError(
                "this recipe needs word vectors of the classes: name a file with --words, or set SKETCH_SEARCH_DATA to "
                "the folder of the optional data, which has some"
            ) from error
        return _of_numpy(folder / STAND_IN, folder / "class_words.txt", f"{STAND_IN}, a stand-in for word2vec")
    if not path.is_file():
        raise ModelError(f"there is no file of word vectors at {path}")
    if path.suffix == ".npy":
        return _of_numpy(path, path.with_suffix(".txt"), path.name)
    return _of_word2vec(path)


def _of_numpy(vectors: Path, words: Path, name: str) -> WordVectors:
    try:
        names = tuple(words.read_text(encoding="utf-8").split("\n"))
        table = np.load(vectors, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"the word vectors {vectors} with their words {words.name} cannot be read: {error}") from error
    names = names[:-1] if names[-1] == "" else names
    if table.ndim != 2 or table.shape[0] != len(names):
        raise ModelError(f"{vectors} must have a row for each of the {len(names)} words in {words.name}")
    return WordVectors(name, names, torch.from_numpy(table.astype(np.float32)))


def _of_word2vec(path: Path) -> WordVectors:
    try:
        from gensim.models import KeyedVectors
    except ImportError as error:
        raise ModelError("word2vec files are read by gensim: pip install 'sketch-search[words]'") from error
    binary = ".bin" in path.suffixes
    try:
        if path.suffix == ".kv":
            table = KeyedVectors.load(str(path))
        else:
            table = KeyedVectors.load_word2vec_format(str(path), binary=binary, limit=MOST_WORDS)
    # For a file of another kind, gensim's error depends on the first bytes.
    except Exception as error:
        raise ModelError(f"{path} is not a word2vec file that gensim can read: {error}") from error
    return WordVectors(path.name, tuple(table.index_to_key), torch.from_numpy(np.array(table.vectors, np.float32)))


def class_rows(
    words: WordVectors, labels: Sequence[str], names: Mapping[str, Sequence[str]], *, lacking: bool = False
) -> dict[str, list[int]]:
    """Finds the rows of each class's words: of ``names``, its name or its parts. Raises ModelError unless lacking."""
    places: dict[str, int] = {}
    for number, word in enumerate(words.words):
        places.setdefault(spelling(word), number)
    rows_of = {label: _rows(label, names, places) for label in labels}
    without = [label for label, rows in rows_of.items() if not rows]
    if without and not lacking:
        raise ModelError(
            f"the word vectors {words.name} lack {', '.join(without)}; name other words for them in the recipe's "
            f'table [names], such as {json.dumps(without[0], ensure_ascii=False)} = ["thing"]'
        )
    return rows_of


def class_vectors(words: WordVectors, rows: Mapping[str, Sequence[int]]) -> torch.Tensor:
    """Computes the mean direction of each class's words, (c, d) float32. rows: from ``class_rows``."""
    return torch.stack([F.normalize(words.vectors[list(numbers)], dim=1).mean(dim=0) for numbers in rows.values()])


def _rows(label: str, names: Mapping[str, Sequence[str]], places: Mapping[str, int]) -> list[int]:
    if label in names:
        spellings = [spelling(name) for name in names[label]]
    else:
        spellings = [spelling(label)]
        if spellings[0] not in places:
            spellings = spellings[0].split()
    return [places[word] for word in spellings] if all(word in places for word in spellings) else []
