"""Scores of every sketch of a corpus against every photo, by each method of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.datasets import Corpus, Picture
from model.errors import ImageError, ModelError
from model.evaluation.words import word_matrices
from model.matcher import Matcher
from model.network import METHODS, Method, Modality, Tokens

# Pictures that are prepared before the network encodes them: bounds the memory for pixels.
PREPARED_AT_ONCE = 256
# Name of the baseline ViT-Vis: the distance of the mean patch tokens.
VISUAL = "vis"


def score_matrices(
    matcher: Matcher,
    corpus: Corpus,
    methods: Sequence[Method] | None = None,
    *,
    visual: bool = False,
    words: bool = False,
) -> dict[str, NDArray[np.floating]]:
    """(sketches, photos) float32 for each method, higher is better.

    Args:
        methods: None for all that the checkpoint has. Where the checkpoint has a threshold for diffusion, the scores
            after diffusion follow as "rn+diffusion" and so on.
        visual: whether to add VISUAL, minus the distance of the normalised means of the patch tokens.
        words: whether to add searches by the words of the classes, see ``model.evaluation.words``.

    Raises:
        ModelError: there are no sketches or no photos, or no class has both; or a class is no word of the vocabulary.
    """
    if not corpus.sketches or not corpus.photos:
        raise ModelError("an evaluation needs sketches and photos; found " + counts(corpus))
    check_classes(corpus)
    queries = encode_pictures(matcher, corpus.sketches, "sketch")
    gallery = encode_pictures(matcher, corpus.photos, "photo")
    matrices = token_matrices(matcher, queries, gallery, methods)
    if visual:
        matrices[VISUAL] = -matcher.ret_distances(visual_mean(queries), visual_mean(gallery)).numpy()
    if words:
        matrices |= word_matrices(matcher, [sketch.label for sketch in corpus.sketches], gallery, matrices)
    return matrices


def token_matrices(
    matcher: Matcher, queries: Tokens, gallery: Tokens, methods: Sequence[Method] | None = None
) -> dict[str, NDArray[np.floating]]:
    """The same of pictures that are encoded: the methods, and diffusion where the checkpoint has a threshold for it."""
    chosen = [m for m in METHODS if m in (methods or matcher.methods)]
    scores = matcher.scores_by(queries, gallery, chosen)
    matrices: dict[str, NDArray[np.floating]] = {method: scores[method].numpy() for method in chosen}
    if matcher.calibration.diffusion is not None:
        for method in chosen:
            matrices[f"{method}+diffusion"] = matcher.diffuse(scores[method], gallery.ret, method).numpy()
    return matrices


def encode_pictures(matcher: Matcher, pictures: Sequence[Picture], modality: Modality) -> Tokens:
    """The tokens of all pictures in order, float32 on the CPU. Raises ModelError for a file that cannot be read."""
    parts = []
    for start in range(0, len(pictures), PREPARED_AT_ONCE):
        batch = [_prepared(matcher, picture, modality) for picture in pictures[start : start + PREPARED_AT_ONCE]]
        parts.append(matcher.encode(torch.stack(batch), modality).to("cpu"))
    return Tokens.cat(parts)


def _prepared(matcher: Matcher, picture: Picture, modality: Modality) -> torch.Tensor:
    try:
        return matcher.prepare(matcher.open(picture.path, modality), modality)
    except ImageError as error:
        raise ModelError(f"{picture.path}: {error}; remove it or repair it") from error


def visual_mean(tokens: Tokens) -> Tokens:
    """The same tokens with the mean of the patch tokens in the place of [Ret].

    Raises ModelError where there are no patch tokens, as of networks with one vector for each picture.
    """
    if not tokens.patches.shape[1]:
        raise ModelError("this network keeps no patch tokens, so that there is no mean of them to score by")
    mean = tokens.patches.mean(dim=1, keepdim=True)
    return Tokens(torch.cat([mean, tokens.patches], dim=1), tokens.positions)


def check_classes(corpus: Corpus) -> None:
    """Raises ModelError where no class has both a sketch and a photo."""
    if not {p.label for p in corpus.sketches} & {p.label for p in corpus.photos}:
        raise ModelError("no sketch has a photo of its class; the two halves must use the same class names")


def counts(corpus: Corpus) -> str:
    """The size of a corpus in words."""
    return f"{len(corpus.sketches)} sketches and {len(corpus.photos)} photos of {len(corpus.labels)} classes"
