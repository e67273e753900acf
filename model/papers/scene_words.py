"""Fits words of scenes, such as snow, to photos with keywords: they have neither sketches nor text vectors."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sketch_search.model.checkpoint import load_zse_network
from sketch_search.model.datasets import Picture
from sketch_search.model.engine import Floats, Tokens, unit
from sketch_search.model.errors import ModelError
from sketch_search.model.evaluation import encode_pictures
from sketch_search.model.matcher import load
from sketch_search.model.metrics import first_page, query_metrics
from sketch_search.model.papers.runs import check_target
from sketch_search.model.papers.vocabulary import minimise, save_changed
from sketch_search.model.words import spelling, stem

# The ridge of the regressions, chosen on folders of photos that were held out.
RIDGE = 0.01
# The fewest photos that a word is fitted to, and the parts of them that are held back in turn.
FEWEST, _PARTS = 20, 5
# The median score of a word's photos that the fit did not see. Keywords are often missing, which lowers the logits of a
# regression. With this median, the best of three photos of a word among 1,000 is below the bound of ``fits`` in one of
# thirty draws, and ordinary photos without beaches, gardens or streets are.
MEDIAN = 1.5
_STEPS = 200


def give_scenes(
    source: Path, target: Path, *, photos: Path, keywords: Path, words: Sequence[str], test: Path | None
) -> None:
    """Writes a checkpoint with further words, fitted to the photos that have these keywords. Raises ModelError.

    keywords: a CSV file, a line for each photo below ``photos``: its name without ending, then its keywords. test: the
    same for other photos, on which the words are measured.
    """
    check_target(target)
    network, matcher = load_zse_network(source), load(source)
    before, named = network.vocabulary, {spelling(name) for names in network.config.words for name in names}
    if before is None:
        raise ModelError(f"{source} has no vocabulary; give it one by sketch-search model words")
    if known := [word for word in words if spelling(word) in named]:
        raise ModelError(f"the vocabulary has these words already: {', '.join(known)}")
    training = read_keywords(photos, keywords)
    shown = _shown(training, words)
    if few := [word for word, row in zip(words, shown, strict=True) if row.sum() < FEWEST]:
        raise ModelError(f"fewer than {FEWEST} photos have these keywords: {', '.join(few)}")
    ret = encode_pictures(matcher, training, "photo").ret
    directions, biases = fit_scenes(ret, shown, before.levels(ret))
    after = replace(
        before,
        directions=np.concatenate([before.directions, directions]),
        biases=np.concatenate([before.biases, biases]),
        placed=before.placed + len(words),
    )
    names = (*network.config.words, *((word,) for word in words))
    save_changed(network.vocabulary_replaced(after, names), source, target)
    print(f"wrote {target}: {len(words)} words, from {len(training):,} photos")
    if test is not None:
        held = read_keywords(photos, test)
        scores = load(target).word_scores(
            Tokens.of_ret(encode_pictures(matcher, held, "photo").ret), range(len(before.biases), len(after.biases))
        )
        _print_figures(words, scores, _shown(held, words))


def fit_scenes(ret: NDArray[np.floating], shown: NDArray[np.bool_], levels: Floats) -> tuple[Floats, Floats]:
    """Fits directions (w, d) and biases (w,) of words to photos, whose median score d . r + b - level is MEDIAN.

    ret: (n, d), any scale. shown: (w, n). levels: (n,), as ``Vocabulary.levels``.
    """
    held = np.empty(shown.shape, np.float32)
    for part in range(_PARTS):
        own = np.arange(len(ret)) % _PARTS == part
        directions, biases = _regress(ret[~own], shown[:, ~own], levels[~own])
        held[:, own] = directions @ unit(ret[own]).T + biases[:, None] - levels[own]
    directions, biases = _regress(ret, shown, levels)
    medians = [np.median(scores[right]) for scores, right in zip(held, shown, strict=True)]
    return directions, biases + np.float32(MEDIAN) - np.array(medians, np.float32)


def _regress(ret: NDArray[np.floating], shown: NDArray[np.bool_], levels: Floats) -> tuple[Floats, Floats]:
    """Fits a logistic regression for each word, whose logits are its scores."""
    given = F.normalize(torch.from_numpy(ret).float(), dim=1)
    mean, spread = given.mean(dim=0), given.std(dim=0).mean().clamp(min=1e-6)
    inputs, targets = (given - mean) / spread, torch.from_numpy(shown.T).float()
    weights = torch.zeros(inputs.shape[1], targets.shape[1]).requires_grad_()
    shifts = torch.zeros(targets.shape[1]).requires_grad_()

    def loss() -> torch.Tensor:
        logits = inputs @ weights + shifts - torch.from_numpy(levels)[:, None]
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(inputs)
        return each + RIDGE / 2 * weights.square().sum()

    minimise(loss, torch.optim.LBFGS([weights, shifts], max_iter=_STEPS, line_search_fn="strong_wolfe"))
    directions = weights.detach().T / spread
    return directions.numpy(), (shifts.detach() - directions @ mean).numpy()


def read_keywords(photos: Path, file: Path) -> list[Picture]:
    """Reads the photos that a CSV file names, with their keywords. Raises ModelError."""
    paths = {path.stem: path for path in photos.rglob("*") if path.is_file()}
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
    if missing := [row[0] for row in rows if row[0] not in paths]:
        raise ModelError(f"{photos} lacks {len(missing)} photos of {file}, such as {missing[0]}")
    return [Picture(paths[row[0]], "", "", also=tuple(filter(None, row[1:]))) for row in rows]


def _shown(pictures: Sequence[Picture], words: Sequence[str]) -> NDArray[np.bool_]:
    """Returns which pictures have each word as a keyword, in singular or plural, (w, n)."""
    keys = [{stem(spelling(keyword)) for keyword in picture.also} for picture in pictures]
    return np.array([[stem(spelling(word)) in own for own in keys] for word in words])


def _print_figures(words: Sequence[str], scores: Floats, shown: NDArray[np.bool_]) -> None:
    print("| word | photos | precision@10 | average precision |\n|---|---|---|---|")
    for word, row, right in zip(words, scores, shown, strict=True):
        if right.any():
            first = first_page(row[None], right[None], plain=True)["plain_precision_10"].item()
            mean = query_metrics(row[None], right[None], plain=True)["plain_map_all"].item()
            print(f"| {word} | {right.sum()} | {first:.1f} | {mean:.2f} |")
