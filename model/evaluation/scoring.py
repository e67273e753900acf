"""Scores every sketch of a corpus against every photo, by each method of a checkpoint."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.datasets import Corpus, Picture, Task
from model.engine import METHODS, Floats, Method, Modality, Tokens, unit
from model.errors import ImageError, ModelError
from model.matcher import Matcher
from model.ranking import EXAMPLES, led_by_word, named, pulled

# The number of pictures that are prepared before the network encodes them. It bounds the memory for pixels.
PREPARED_AT_ONCE = 256
# The name of the scores by the word alone.
WORD = "word"


def score_matrices(
    matcher: Matcher, corpus: Corpus, methods: Sequence[Method] | None = None, *, words: bool = False
) -> dict[str, NDArray[np.floating]]:
    """Computes scores (sketches, photos) float32 by each method, higher is better; then diffused, as "rn+diffusion".

    methods: None for all of the checkpoint. words: adds ``word_matrices``.
    Raises ModelError if sketches or photos are missing, no class has both, or a class is no word of the vocabulary.
    """
    if not corpus.sketches or not corpus.photos:
        raise ModelError("an evaluation needs sketches and photos; found " + counts(corpus))
    if not {sketch.label for sketch in corpus.sketches} & {photo.label for photo in corpus.photos}:
        raise ModelError("no sketch has a photo of its class; the two halves must use the same class names")
    queries, gallery = encoded(matcher, corpus)
    chosen = [m for m in METHODS if m in (methods or matcher.methods)]
    scores = matcher.scores_by(queries, gallery, chosen)
    matrices: dict[str, NDArray[np.floating]] = {method: scores[method] for method in chosen}
    if matcher.calibration.diffusion is not None:
        for method in chosen:
            matrices[f"{method}+diffusion"] = matcher.diffuse(scores[method], gallery.ret, method)
    if words:
        matrices |= word_matrices(matcher, [sketch.label for sketch in corpus.sketches], gallery, matrices)
    return matrices


def task_matrices(
    matcher: Matcher, task: Task, methods: Sequence[Method] | None = None, *, words: bool = False
) -> dict[str, NDArray[np.floating]]:
    """Computes the scores that ``measure`` takes for a task."""
    if task.protocol == "within":
        return within_matrices(matcher, task.corpus)
    return score_matrices(matcher, task.corpus, methods, words=words)


def within_matrices(matcher: Matcher, corpus: Corpus) -> dict[str, NDArray[np.floating]]:
    """Computes the cosines of [Ret] among all pictures, sketches before photos: (s + p, s + p) float32."""
    ret = unit(np.concatenate([tokens.ret for tokens in encoded(matcher, corpus)]))
    return {"ret": ret @ ret.T}


def word_matrices(
    matcher: Matcher, labels: Sequence[str], gallery: Tokens, matrices: Mapping[str, NDArray[np.floating]]
) -> dict[str, NDArray[np.floating]]:
    """Computes scores by the word of each sketch's class, as searches do, with names as in ``score_matrices``.

    Returns "word" for the word alone, which is searched by the [Ret] of its best photos, and "rn+word" and so on for
    the word together with the sketch. Raises ModelError if the vocabulary lacks a class.
    """
    kinds = sorted(set(labels))
    scores = matcher.word_scores(gallery, [matcher.book.find(label) for label in kinds])
    shown = {label: named(of_word, float(of_word.max())) for label, of_word in zip(kinds, scores, strict=True)}
    alone = {label: _alone(matcher, gallery, words) for label, words in shown.items()}
    found: dict[str, NDArray[np.floating]] = {WORD: np.stack([alone[label] for label in labels])}
    for name, of_sketches in matrices.items():
        method = next(method for method in METHODS if method == name.partition("+")[0])
        rows = zip(of_sketches.astype(np.float32), labels, strict=True)
        found[f"{name}+{WORD}"] = np.stack([led_by_word(row, shown[label], method) for row, label in rows])
    return found


def _alone(matcher: Matcher, gallery: Tokens, words: Floats) -> Floats:
    """Computes the scores (p,) of a search by a word with this support (p,), without a sketch."""
    best = np.argsort(-words, kind="stable")[:EXAMPLES]
    query = Tokens.of_ret(pulled(None, gallery.ret[best]))
    scores = matcher.scores(query, gallery, "ret")
    if matcher.calibration.diffusion is not None:
        scores = matcher.diffuse(scores, gallery.ret, "ret")
    return led_by_word(scores[0], words, "ret")


def encoded(matcher: Matcher, corpus: Corpus) -> tuple[Tokens, Tokens]:
    """Encodes the sketches of a corpus, and its photos; see ``encode_pictures``."""
    return encode_pictures(matcher, corpus.sketches, "sketch"), encode_pictures(matcher, corpus.photos, "photo")


def encode_pictures(matcher: Matcher, pictures: Sequence[Picture], modality: Modality) -> Tokens:
    """Encodes all pictures in order. Raises ModelError for a file that cannot be read."""
    parts = []
    for start in range(0, len(pictures), PREPARED_AT_ONCE):
        batch = [_prepared(matcher, picture, modality) for picture in pictures[start : start + PREPARED_AT_ONCE]]
        parts.append(matcher.encode(np.stack(batch), modality))
    return Tokens.cat(parts)


def _prepared(matcher: Matcher, picture: Picture, modality: Modality) -> Floats:
    try:
        return matcher.prepare(matcher.open(picture.path, modality), modality)
    except ImageError as error:
        raise ModelError(f"{picture.path}: {error}; remove it or repair it") from error


def counts(corpus: Corpus) -> str:
    """Writes the size of a corpus in words."""
    return f"{len(corpus.sketches)} sketches and {len(corpus.photos)} photos of {len(corpus.labels)} classes"
