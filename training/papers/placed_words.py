"""Gives a vocabulary further words: those that no photo shows by text vectors, those of scenes by photos' keywords."""

import csv
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file

from sketch_search.model import load
from sketch_search.model.engine import Floats, Tokens, Vocabulary, unit
from sketch_search.model.errors import ModelError
from sketch_search.model.metrics import first_page, query_metrics
from sketch_search.model.torch.checkpoint import load_zse_network
from sketch_search.model.words import Names, WordBook, everyday_words, spelling, stem, why_no_name
from sketch_search.training.corpus import (
    Picture,
    data_folder,
    read_both,
    read_data,
    read_drawings,
    read_line_drawings,
    read_more,
    rows_by_label,
)
from sketch_search.training.evaluation.scoring import encode_pictures
from sketch_search.training.pages import record_table
from sketch_search.training.papers.pictures import read_word_vectors
from sketch_search.training.papers.vocabulary import imagenet_names, minimise, save_changed, word_of
from sketch_search.training.tasks import MOST_DRAWN, some_of_each

# A file with the mean vector of CLIP's image tower for each of ImageNet-1k's classes, in the classifier's order.
PROTOTYPES = "clip_imagenet_prototypes.safetensors"
# The kernel ridge regressions from CLIP's vectors to directions and to their quality, chosen on held-out words.
SHARPNESS, RIDGE = 1.0, 0.1
LIKELY_SHARPNESS, LIKELY_RIDGE = 3.0, 3.0
# Predicted directions are shorter than fitted ones. With this factor, photos score by them as by fitted ones.
STRETCH = 1 / 0.7
# The ridge of the logistic regressions of scenes, such as snow, chosen on folders of photos that were held out.
SCENE_RIDGE = 0.01
# The fewest photos that a word of a scene is fitted to, and the parts of photos or words that are held back in turn.
FEWEST, _PARTS = 20, 5
# The median score of a word's photos that the fit did not see, so that they pass the bound of ``fits``.
MEDIAN = 1.5
_STEPS = 200
# The share of things without a word that get one, the best placed by held-out words (docs/research/default-network.md).
KEPT = 0.5
# Words that sketches place: how many of each kind, and the kernel ridge regression from their mean [Ret].
SKETCHES, SKETCH_SHARPNESS, SKETCH_RIDGE = 24, 1.0, 0.1
# Birds that people mean something else by.
RENAMED = {"kite": "kite bird"}
# The most words of a name.
_LONGEST = 3


@dataclass(frozen=True)
class Known:
    """The words that a vocabulary and CLIP share: n centred vectors, (n, c) of length 1.

    words: (n,) int64, numbers. texts: (n,) bool, of texts or photos. targets: (w, d + 1), directions and biases.
    """

    vectors: torch.Tensor
    words: torch.Tensor
    texts: torch.Tensor
    targets: torch.Tensor

    def without(self, words: torch.Tensor) -> "Known":
        kept = ~torch.isin(self.words, words)
        return Known(self.vectors[kept], self.words[kept], self.texts[kept], self.targets)

    def predict(self, vectors: torch.Tensor) -> torch.Tensor:
        """Predicts direction and bias of words with these text vectors (m, c): (m, d + 1)."""
        return STRETCH * _regress(self.vectors, self.targets[self.words], vectors, SHARPNESS, RIDGE)


def place_words(source: Path, target: Path) -> None:
    """Writes a checkpoint with further words, for things without photos: what many people draw, and the best placed.

    Words lie by their text vectors, those without by their sketches. The words before stay. Raises ModelError.
    """
    network, folder = load_zse_network(source), data_folder()
    if network.vocabulary is None:
        raise ModelError(f"{source} has no vocabulary; give it one by python -m training words")
    usual = {spelling(name) for name in MOST_DRAWN}
    names, before = name_plainly(network.config.words, usual), network.vocabulary
    read = read_word_vectors(None)
    rows_of = read.things()
    # "Human hand" is what a person calls a hand.
    plain = [word.replace("_", " ").removeprefix("human ") for word in read.words]
    things = [tuple(plain[row] for row in rows) for rows in rows_of]
    texts = _centre(read.vectors[[rows[0] for rows in rows_of]])
    if not (path := folder / "data" / "more3" / PROTOTYPES).is_file():
        raise ModelError(f"there is no {path}; the optional data has it, and this needs it")
    (prototypes,) = load_file(path).values()
    fitted = len(names) - before.placed
    known = find_known_words(names[:fitted], before, things, texts, _centre(prototypes.float()))
    book = WordBook(names)
    labels = {photo.label for photo in read_data(folder).photos + read_more(folder).photos}
    shown = sorted({number for label in labels if 0 <= (number := word_of(label, book)) < fitted})
    further = find_further_words(names, things)
    rows: list[tuple[str, torch.Tensor]] = []
    if further:
        vectors = torch.stack([texts[number] for number in further])
        likely = likely_placed(known, torch.tensor(shown), vectors)
        # The best placed ones are added once.
        least = float("inf") if before.placed else float(likely.quantile(1 - KEPT))
        for thing, row, good in zip(further.values(), known.predict(vectors), (likely >= least).tolist(), strict=True):
            rows += [(name, row) for name in thing if good or spelling(name) in usual]
    rows += _place_by_sketches(source, before, names, fitted, usual - {spelling(name) for name, _ in rows})
    new = np.array([row.numpy() for _, row in rows], np.float32).reshape(-1, before.directions.shape[1] + 1)
    after, words = _with_words(before, names, [name for name, _ in rows], new[:, :-1], new[:, -1])
    save_changed(network.vocabulary_replaced(after, words), source, target)
    print(f"wrote {target}: {len(rows)} words beside {len(names):,}, of {len(further):,} things that have none")


def _with_words(
    before: Vocabulary, names: Sequence[Names], words: Sequence[str], directions: Floats, biases: Floats
) -> tuple[Vocabulary, tuple[Names, ...]]:
    """Adds words with their directions (w, d) and biases (w,) to a vocabulary, and to its names."""
    directions = np.concatenate([before.directions, directions])
    biases, placed = np.concatenate([before.biases, biases]), before.placed + len(words)
    after = replace(before, directions=directions, biases=biases, placed=placed)
    return after, (*names, *((word,) for word in words))


def name_plainly(names: Sequence[Names], usual: Set[str]) -> tuple[Names, ...]:
    """Puts the name that most people use, one of ``usual``, first: a lighthouse is no "beacon"; renames homonyms."""
    renamed = [tuple(RENAMED.get(name, name) for name in word) for word in names]
    return tuple(tuple(sorted(word, key=lambda name: spelling(name) not in usual)) for word in renamed)


def _place_by_sketches(
    source: Path, vocabulary: Vocabulary, names: Sequence[Names], fitted: int, usual: Set[str]
) -> list[tuple[str, torch.Tensor]]:
    """Places those of the usual names that no name means but that there are sketches of: (d + 1,) each."""
    folder, book, everyday = data_folder(), WordBook(names), {stem(name) for name in everyday_words()}
    sketches = read_both(folder).sketches + read_drawings(folder) + read_line_drawings(folder, ("val", "ship"))
    of_kind = rows_by_label(sketch.label for sketch in sketches)
    numbers = {label: word_of(label, book) for label in of_kind}
    lacking = [label for label in of_kind if spelling(label) in usual and numbers[label] < 0]
    lacking = [label for label in lacking if stem(spelling(label)) not in everyday]
    taught = [label for label in of_kind if 0 <= numbers[label] < fitted]
    if not lacking or not taught:
        return []
    kinds = {*taught, *lacking}
    chosen = some_of_each([sketch for sketch in sketches if sketch.label in kinds], SKETCHES)
    ret = torch.from_numpy(encode_pictures(load(source, variants=1), chosen, "sketch").ret)
    rows = rows_by_label(sketch.label for sketch in chosen)
    means = {label: F.normalize(F.normalize(ret[of], dim=1).mean(dim=0), dim=0) for label, of in rows.items()}
    of_taught, of_lacking = (torch.stack([means[label] for label in labels]) for labels in (taught, lacking))
    targets = torch.from_numpy(np.column_stack([vocabulary.directions, vocabulary.biases]))
    targets = targets[[numbers[label] for label in taught]]
    placed = _regress(of_taught, targets, of_lacking, SKETCH_SHARPNESS, SKETCH_RIDGE)
    return [(" ".join(label.split("_")), row) for label, row in zip(lacking, placed, strict=True)]


def find_known_words(
    names: Sequence[Names],
    vocabulary: Vocabulary,
    things: Sequence[Names],
    texts: torch.Tensor,
    prototypes: torch.Tensor,
) -> Known:
    """Finds CLIP's vectors of fitted words, from texts (t, c) and prototypes (1000, c), centred apart."""
    of_name = {spelling(name): number for number, thing in enumerate(things) for name in thing}
    thing_of: dict[int, int] = {}
    for number, word in enumerate(names):
        if known := [of_name[key] for key in map(spelling, word) if key in of_name]:
            thing_of[number] = known[0]
    book = WordBook(names)
    classes = rows_by_label(word_of(described[0], book) for described in imagenet_names())
    images = [prototypes[rows].mean(dim=0, keepdim=True) for number, rows in classes.items() if number >= 0]
    numbers = [*thing_of, *(number for number in classes if number >= 0)]
    return Known(
        F.normalize(torch.cat([texts[list(thing_of.values())], *images]), dim=1),
        torch.tensor(numbers),
        torch.arange(len(numbers)) < len(thing_of),
        torch.from_numpy(np.column_stack([vocabulary.directions, vocabulary.biases])[: len(names)]),
    )


def find_further_words(names: Sequence[Names], things: Sequence[Names]) -> dict[int, Names]:
    """Finds the things of which a vocabulary has no name, nor everyday words one: names by the thing's number."""
    taken = {stem(spelling(name)) for word in names for name in word} | {stem(name) for name in everyday_words()}
    begun = {spelling(name) for thing in things for name in thing}
    further: dict[int, Names] = {}
    for number, thing in enumerate(things):
        keys = {stem(spelling(name)): name for name in reversed(thing) if why_no_name(name) is None}
        usual = [name for name in keys.values() if len(name.split()) <= _LONGEST and " and " not in name]
        if usual and not taken & keys.keys():
            # "Cap headwear" only says which cap is meant.
            plain = [name for name in usual if not any(spelling(name).startswith(f"{first} ") for first in begun)]
            further[number] = tuple(plain or usual[:1])
            taken |= keys.keys()
    return further


def likely_placed(known: Known, shown: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Predicts the cosines of predicted and fitted directions, (m,), from ``shown`` words (s,). Raises ModelError."""
    usable = known.texts & torch.isin(known.words, shown)
    if not usable.any():
        raise ModelError("no word of the vocabulary has both photos and a text vector in the optional data")
    words, mean = known.words[usable], known.targets[:, :-1].mean(dim=0)
    order = words[torch.randperm(len(words), generator=torch.Generator().manual_seed(0))]
    cosines = torch.zeros(len(words))
    for part in range(_PARTS):
        held = torch.isin(words, order[part::_PARTS])
        directions = known.without(words[held]).predict(known.vectors[usable][held])[:, :-1] / STRETCH
        cosines[held] = F.cosine_similarity(directions - mean, known.targets[words[held], :-1] - mean)
    cosines_of = _regress(known.vectors[usable], cosines[:, None], vectors, LIKELY_SHARPNESS, LIKELY_RIDGE)
    return cosines_of[:, 0]


def _regress(
    inputs: torch.Tensor, targets: torch.Tensor, points: torch.Tensor, sharpness: float, ridge: float
) -> torch.Tensor:
    """Predicts targets (n, d) of vectors (n, c) at others (m, c), by a kernel ridge regression: (m, d)."""

    def kernel(vectors: torch.Tensor) -> torch.Tensor:
        return torch.exp(sharpness * (F.normalize(vectors, dim=1) @ F.normalize(inputs, dim=1).T - 1))

    mean = targets.mean(dim=0)
    weights = torch.linalg.solve(kernel(inputs) + ridge * torch.eye(len(inputs)), targets - mean)
    outputs: torch.Tensor = kernel(points) @ weights + mean
    return outputs


def _centre(vectors: torch.Tensor) -> torch.Tensor:
    vectors = F.normalize(vectors, dim=1)
    return vectors - vectors.mean(dim=0)


def give_scenes(
    source: Path, target: Path, *, photos: Path, keywords: Path, words: Sequence[str], test: Path | None
) -> None:
    """Writes a checkpoint with further words, fitted to the photos that have these keywords. Raises ModelError.

    keywords: a CSV file, a line for each photo below ``photos``: its name without ending, then its keywords. test: the
    same for other photos, on which the words are measured.
    """
    network, matcher = load_zse_network(source), load(source)
    before, named = network.vocabulary, {spelling(name) for names in network.config.words for name in names}
    if before is None:
        raise ModelError(f"{source} has no vocabulary; give it one by python -m training words")
    if known := [word for word in words if spelling(word) in named]:
        raise ModelError(f"the vocabulary has these words already: {', '.join(known)}")
    training = read_keywords(photos, keywords)
    shown = _shown(training, words)
    if few := [word for word, row in zip(words, shown, strict=True) if row.sum() < FEWEST]:
        raise ModelError(f"fewer than {FEWEST} photos have these keywords: {', '.join(few)}")
    ret = encode_pictures(matcher, training, "photo").ret
    directions, biases = fit_scenes(ret, shown, before.levels(ret))
    after, names = _with_words(before, network.config.words, words, directions, biases)
    save_changed(network.vocabulary_replaced(after, names), source, target)
    print(f"wrote {target}: {len(words)} words, from {len(training):,} photos")
    if test is not None:
        held = read_keywords(photos, test)
        tokens, added = encode_pictures(matcher, held, "photo"), range(len(before.biases), len(after.biases))
        scores = load(target).word_scores(Tokens.of_ret(tokens.ret), added)
        rows = {}
        for word, row, right in zip(words, scores, _shown(held, words), strict=True):
            if right.any():
                first = first_page(row[None], right[None], plain=True)["plain_precision_10"].item()
                mean = query_metrics(row[None], right[None], plain=True)["plain_map_all"].item()
                rows[word] = {"photos": int(right.sum()), "precision@10": first, "average precision": mean}
        print(record_table("word", rows) if rows else "no photo of the test has any of these keywords")


def fit_scenes(ret: NDArray[np.floating], shown: NDArray[np.bool_], levels: Floats) -> tuple[Floats, Floats]:
    """Fits directions (w, d) and biases (w,) of words to photos, whose median score d . r + b - level is MEDIAN.

    ret: (n, d), any scale. shown: (w, n). levels: (n,), as ``Vocabulary.levels``.
    """
    held = np.empty(shown.shape, np.float32)
    for part in range(_PARTS):
        test_part = np.arange(len(ret)) % _PARTS == part
        directions, biases = _regress_logistic(ret[~test_part], shown[:, ~test_part], levels[~test_part])
        held[:, test_part] = directions @ unit(ret[test_part]).T + biases[:, None] - levels[test_part]
    directions, biases = _regress_logistic(ret, shown, levels)
    medians = [np.median(scores[right]) for scores, right in zip(held, shown, strict=True)]
    return directions, biases + np.float32(MEDIAN) - np.array(medians, np.float32)


def _regress_logistic(ret: NDArray[np.floating], shown: NDArray[np.bool_], levels: Floats) -> tuple[Floats, Floats]:
    """Fits a logistic regression for each word, whose logits are its scores."""
    places = F.normalize(torch.from_numpy(ret).float(), dim=1)
    mean, spread = places.mean(dim=0), places.std(dim=0).mean().clamp(min=1e-6)
    inputs, targets = (places - mean) / spread, torch.from_numpy(shown.T).float()
    weights = torch.zeros(inputs.shape[1], targets.shape[1]).requires_grad_()
    shifts = torch.zeros(targets.shape[1]).requires_grad_()

    def loss() -> torch.Tensor:
        logits = inputs @ weights + shifts - torch.from_numpy(levels)[:, None]
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(inputs)
        return each + SCENE_RIDGE / 2 * weights.square().sum()

    minimise(loss, weights, shifts, max_iter=_STEPS)
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
    return np.array([[stem(spelling(word)) in keywords for keywords in keys] for word in words])
