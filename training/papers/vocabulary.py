"""Makes a trained network's vocabulary (``model.engine.Vocabulary``): words, and their directions among photos."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sketch_search.model import engine, load
from sketch_search.model.errors import ModelError
from sketch_search.model.images import Preprocessing
from sketch_search.model.torch import Network, layout_of, read_backbone
from sketch_search.model.torch.checkpoint import load_zse_network, save_checkpoint
from sketch_search.model.words import Names, WordBook, spelling, why_no_name
from sketch_search.training import corpus
from sketch_search.training.evaluation.scoring import encode_pictures, ret_matcher
from sketch_search.training.papers.pictures import (
    STAND_IN,
    WordVectors,
    class_tokens,
    prepare_pixels,
    read_word_vectors,
    training_corpora,
)
from sketch_search.training.papers.tables import read_recipe
from sketch_search.training.papers.two_sided import class_places
from sketch_search.training.tasks import some_of_each

# The number of classes of ImageNet-1k.
_CLASSES = 1000
# Photos of each class that the vocabulary is fitted on. Encoding takes time in proportion.
PHOTOS_PER_CLASS = 16
# Sketches of each class that guesses are calibrated on.
SKETCHES_PER_CLASS = 5
# The most sketches of each class that guesses are learned from.
DRAWN_PER_CLASS = 400


def give_words(source: Path, backbone: str, target: Path, *, recipe: Path, data: Path | None) -> None:
    """Writes a checkpoint with a vocabulary from the photos of ``recipe`` or ``data``. Raises ModelError."""
    network, weights = load_zse_network(source), read_backbone(backbone)
    pictures = training_corpora(data, read_recipe(recipe))
    photos = pictures.training.photos + pictures.further.photos

    shown, look = some_of_each(photos, PHOTOS_PER_CLASS), Preprocessing()
    # The ViT's probabilities of what the photos show; none without a classifier.
    beliefs = class_tokens(layout_of(weights), weights, prepare_pixels(shown, "photo", look), look)
    if "head.weight" in weights:
        beliefs = F.linear(beliefs, weights["head.weight"].float(), weights["head.bias"].float()).softmax(dim=1)
    else:
        beliefs = beliefs[:, :0]
    # Guesses are calibrated on sketches that they are not learned from, and on those of validation classes. If neither
    # are there, all calibrate them, and none teaches them. ``give_guesses`` learns from all styles.
    all_sketches = pictures.training.sketches + pictures.further.sketches
    sketches = tuple(sketch for sketch in all_sketches if sketch.source != corpus.DRAWINGS_PART)
    # Every tenth sketch of each class; none of a class of ten or fewer.
    rows_of = corpus.rows_by_label(sketch.label for sketch in sketches).values() if data is None else ()
    held = tuple(sketches[row] for rows in rows_of for row in rows[10::10])
    others = set(held)
    left = held + (pictures.validation.sketches if pictures.validation else ())
    calibrating = some_of_each(left or sketches, SKETCHES_PER_CLASS)
    drawn = some_of_each(tuple(s for s in sketches if s not in others), DRAWN_PER_CLASS) if left else ()
    vectors = read_word_vectors(None) if data is None and (corpus.data_folder() / "data" / STAND_IN).is_file() else None
    worded = with_vocabulary(network, shown, beliefs, calibrating, drawn, vectors)
    save_changed(worded, source, target, pictures.seen)
    print(f"wrote {target}: a vocabulary of {len(worded.config.words):,} words, from {len(shown):,} photos")


def save_changed(network: Network, source: Path, target: Path, seen: engine.SeenClasses | None = None) -> None:
    """Writes a network with the training record of ``source``. seen: classes of the pictures that changed it."""
    notes = {name: text for name, text in engine.read_metadata(source).items() if name in ("origin", "validation")}
    if before := engine.seen_classes(source):
        notes |= (before | seen).note()
    save_checkpoint(network.half(), target, notes)


@cache
def imagenet_names() -> tuple[tuple[str, ...], ...]:
    """Reads the names of ImageNet-1k's classes in the classifier's order."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    described = (info.index_to_description(index) for index in range(_CLASSES))
    return tuple(tuple(name.strip() for name in description.split(",")) for description in described)


# A photo that has a class takes this share of its target from its class, and the rest from the ViT's probabilities.
LABEL_SHARE = 0.5
# Ridges: the classifier's words stay near a linear map from [Ret], others near 0; chosen on photos held out.
MAP_RIDGE = 0.02
WORD_RIDGE = 1e-4
# The fit of things in sketches, chosen on validation classes and on sketches that the fit did not see.
THING_PASSES, THING_BATCH, THING_RATE, THING_DECAY = 12, 256, 1e-3, 0.3
# How much cosines and relation logits rise if guesses and photo agree, chosen on validation classes (docs/networks.md).
RET_GAIN, RELATION_GAIN = 0.2, 4.0
# Without sketches of other things: the share of sketches for which none is as probable as all things together.
NONE_SHARE = 0.03
STEPS = 40
GUESS_STEPS = 100
# The logit of no word lies between minus this and this, which 16 bits can hold. At this value no word is ever guessed.
MOST_NONE = 1e4
# The logit of a word that is impossible.
_NEVER = -1e9
# Names of ImageNet's classes that people draw something else by: a promontory, a breakwater, a diaper and an ocarina.
_HOMONYMS = ("head", "mole", "napkin", "sweet potato")


def with_vocabulary(
    network: Network,
    photos: Sequence[corpus.Picture],
    beliefs: torch.Tensor,
    sketches: Sequence[corpus.Picture],
    drawn: Sequence[corpus.Picture] = (),
    vectors: WordVectors | None = None,
) -> Network:
    """Returns the network with words of the photos' classes, and ImageNet's if the ViT classifies.

    photos, beliefs: to fit on, (n, k) by the ViT. sketches: to calibrate guesses on; none for no guesses.
    drawn: others to learn guesses from. vectors: of words, for synonyms and things without photos. Raises ModelError.
    """
    plain = network.vocabulary_replaced(None)
    matcher = ret_matcher(plain)
    # ImageNet's classes are known by number only. The classifier's probabilities have them already.
    labels = tuple(None if photo.source == corpus.IMAGENET_PART else photo.label for photo in photos)
    names = imagenet_names()
    ret = torch.from_numpy(encode_pictures(matcher, photos, "photo").ret)
    labelled = sorted({label for label in labels if label})
    synonyms = vectors.synonyms() if vectors else ()
    entries = word_list(labelled, names if beliefs.shape[1] == len(names) else (), synonyms)
    if not entries:
        raise ModelError("a vocabulary needs photos in folders of their classes")
    directions, biases = fit_words(ret, labels, beliefs, entries)
    words = tuple(entry.names for entry in entries)
    book = WordBook(words)
    labels_drawn = sorted({sketch.label for sketch in drawn})
    things = {label: number for number, label in enumerate(labels_drawn)} if len(labels_drawn) > 1 else {}
    arrays: dict[str, Any] = {"directions": directions, "biases": biases, "guess_scale": 1.0, "guess_none": MOST_NONE}
    if things:
        numbers = torch.tensor([things[sketch.label] for sketch in drawn])
        summaries = torch.from_numpy(encode_pictures(matcher, drawn, "sketch").guessed_from)
        directions, biases = fit_things(summaries, numbers, torch.bincount(numbers)[numbers] ** -0.5)
        places = class_places(labels_drawn, [photo.label for photo in photos], ret, vectors)
        arrays |= {"sketch_directions": directions, "sketch_biases": biases, "places": places}
        arrays |= {"ret_gain": RET_GAIN, "relation_gain": RELATION_GAIN}
    vocabulary = engine.Vocabulary.of(arrays, [word_of(label, book) for label in things])
    if sketches:
        shows = torch.from_numpy(vocabulary.things(encode_pictures(matcher, sketches, "sketch")))
        targets = [things.get(s.label, -1) if things else word_of(s.label, book) for s in sketches]
        scale, none = fit_guesses(shows, torch.tensor(targets))
        vocabulary = replace(vocabulary, guess_scale=scale, guess_none=none)
    return plain.vocabulary_replaced(vocabulary, words)


def fit_words(
    ret: torch.Tensor, classes: Sequence[str | None], beliefs: torch.Tensor, entries: "Sequence[Entry]"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fits words' directions (w, d) and biases (w,) to photos: to their class by LABEL_SHARE, and to beliefs (n, k).

    The classifier's words begin where a linear regression of its log-probabilities puts them.
    """
    ret = F.normalize(ret.float(), dim=1)
    mean, spread = ret.mean(dim=0), ret.std(dim=0).mean().clamp(min=1e-6)
    inputs, known = (ret - mean) / spread, beliefs.shape[1] > 0
    beliefs = beliefs if known else torch.zeros(len(inputs), 1)
    belongs = torch.zeros(beliefs.shape[1], len(entries))
    numbers: dict[str, int] = {}
    for number, entry in enumerate(entries):
        belongs[list(entry.classes), number] = 1
        numbers |= dict.fromkeys(entry.labels, number)
    labels = torch.tensor([-1 if label is None else numbers.get(label, -1) for label in classes])
    labelled = (labels >= 0)[:, None]
    of_label = F.one_hot(labels.clamp(min=0), len(entries)).float() * labelled
    targets = torch.where(labelled, LABEL_SHARE, 1.0) * (beliefs @ belongs) + of_label * (LABEL_SHARE if known else 1.0)
    classified = belongs.sum(dim=0)
    masks = torch.where(labelled | (classified > 0), 0.0, _NEVER)
    logs = beliefs.clamp(min=1e-12).log()
    logs = logs - logs.mean(dim=1, keepdim=True)
    first = logs.mean(dim=0)
    covariance = inputs.T @ inputs / len(inputs) + MAP_RIDGE * torch.eye(inputs.shape[1])
    weights = torch.linalg.solve(covariance, inputs.T @ (logs - first) / len(inputs))
    weights = (weights @ belongs) / classified.clamp(min=1)
    first = torch.where(classified > 0, first @ belongs / classified.clamp(min=1), first.mean())
    moved, biases = _regress(inputs, targets, masks, weights, first)
    directions = (moved / spread).T
    return directions, biases - directions @ mean


def fit_things(vectors: torch.Tensor, things: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fits (k, e) and (k,) to sketches (n, e) of things (n,), seen as often as their shares (n,) say."""
    vectors = F.normalize(vectors.float(), dim=1)
    mean, spread = vectors.mean(dim=0), vectors.std(dim=0).clamp(min=1e-6)
    inputs, generator = (vectors - mean) / spread, torch.Generator().manual_seed(0)
    regression = nn.Linear(inputs.shape[1], int(things.max()) + 1)
    nn.init.zeros_(regression.weight)
    nn.init.zeros_(regression.bias)
    optimiser = torch.optim.AdamW(regression.parameters(), lr=THING_RATE, weight_decay=THING_DECAY)
    steps = THING_PASSES * -(-len(inputs) // THING_BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, THING_RATE, steps, pct_start=0.05)
    with torch.enable_grad():
        for _ in range(steps):
            rows = torch.multinomial(shares, THING_BATCH, replacement=True, generator=generator)
            optimiser.zero_grad()
            F.cross_entropy(regression(inputs[rows]), things[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    directions = regression.weight.detach() / spread
    return directions, regression.bias.detach() - directions @ mean


def _regress(
    inputs: torch.Tensor, targets: torch.Tensor, masks: torch.Tensor, weights: torch.Tensor, biases: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fits weights (d, w) and biases (w,) to targets (n, w). A ridge keeps them near the given ones."""
    moves = torch.zeros_like(weights).requires_grad_()
    shifts = torch.zeros_like(biases).requires_grad_()

    def loss() -> torch.Tensor:
        logits = inputs @ (weights + moves) + biases + shifts + masks
        total = -(targets * logits.log_softmax(dim=1)).sum() / len(inputs)
        return total + WORD_RIDGE * (moves.square().sum() + 0.01 * shifts.square().sum())

    minimise(loss, moves, shifts, max_iter=STEPS, history_size=8, tolerance_grad=1e-6)
    return (weights + moves).detach(), (biases + shifts).detach()


def fit_guesses(logits: torch.Tensor, things: torch.Tensor) -> tuple[float, float]:
    """Fits scale and logit of none from logits (n, k) and things (n,), -1 for none; see NONE_SHARE."""
    log_scale = torch.zeros(()).requires_grad_()
    none = logits.max(dim=1).values.mean().detach().clone().requires_grad_()
    targets = torch.where(things >= 0, things, logits.shape[1])

    def loss() -> torch.Tensor:
        unknown = none.expand(len(logits), 1)
        return F.cross_entropy(torch.cat([log_scale.exp() * logits, unknown], dim=1), targets)

    minimise(loss, log_scale, none, max_iter=GUESS_STEPS)
    scale = log_scale.detach().exp().clamp(max=100)
    if (things >= 0).all():
        none = (scale * logits).logsumexp(dim=1).quantile(NONE_SHARE)
    return float(scale), float(none.detach().clamp(-MOST_NONE, MOST_NONE))


def minimise(loss: Callable[[], torch.Tensor], *parameters: torch.Tensor, **settings: Any) -> None:
    """Minimises a loss by a step of LBFGS with these settings."""
    optimiser = torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe", **settings)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimiser.step(closure)  # type: ignore[no-untyped-call]


def word_of(label: str, book: WordBook) -> int:
    """Finds the number of the word that names a class, or that an everyday word means; -1 for none."""
    number = book.of_class(label)
    if number is None and len(meant := book.everyday.get(spelling(label), ())) == 1:
        number = meant[0]
    return -1 if number is None else number


@dataclass(frozen=True)
class Entry:
    """A word of the vocabulary, with the classes of the data, and of the classifier by index, that mean it."""

    names: Names  # the first name is shown
    labels: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()


def word_list(labels: Iterable[str], classes: Sequence[Names], synonyms: Iterable[Names] = ()) -> tuple[Entry, ...]:
    """Makes the words of the data's classes, and then of the classifier's.

    They are one word if the classifier's first name is the data's, or another name that no other class has. Of several
    words only the one that shows a name keeps it; it also gets the name's synonyms.
    """
    classes = [tuple(name for name in names if name not in _HOMONYMS) for names in classes]
    first: dict[str, list[int]] = {}
    others: dict[str, list[int]] = {}
    for index, names in enumerate(classes):
        first.setdefault(spelling(names[0]), []).append(index)
        for key in {spelling(name) for name in names[1:]}:
            others.setdefault(key, []).append(index)
    named: dict[str, list[str]] = {}
    for label in labels:
        if why_no_name(label) is None:
            named.setdefault(spelling(label), []).append(label)
    entries: list[Entry] = []
    taken: set[int] = set()
    for key, same in named.items():
        indices = first.get(key) or (others[key] if len(others.get(key, ())) == 1 else [])
        indices = [index for index in indices if index not in taken]
        taken |= set(indices)
        shown = " ".join(same[0].replace("_", " ").split())
        entries.append(Entry((shown, *chain.from_iterable(classes[i] for i in indices)), tuple(same), tuple(indices)))
    for indices in first.values():
        if left := [index for index in indices if index not in taken]:
            entries.append(Entry(tuple(chain.from_iterable(classes[i] for i in left)), (), tuple(left)))
    # An entry keeps its shown name, and those further names that no other word has.
    taken_names = {spelling(entry.names[0]) for entry in entries}
    shared = Counter(key for entry in entries for key in {spelling(name) for name in entry.names})
    for number, entry in enumerate(entries):
        names_by_spelling = {spelling(entry.names[0]): entry.names[0]}
        for name in entry.names[1:]:
            if (key := spelling(name)) not in taken_names and shared[key] == 1:
                names_by_spelling.setdefault(key, name)
        entries[number] = replace(entry, names=tuple(names_by_spelling.values()))
    return _with_synonyms(entries, synonyms)


def _with_synonyms(entries: Sequence[Entry], synonyms: Iterable[Names]) -> tuple[Entry, ...]:
    """Adds to each entry the synonyms of its shown name, except synonyms that mean two words, or two things."""
    named = {spelling(name) for entry in entries for name in entry.names}
    shown = {spelling(entry.names[0]): number for number, entry in enumerate(entries)}
    words_of: dict[str, list[int | None]] = {}
    spelt: dict[str, str] = {}
    for names in synonyms:
        keys = {spelling(name): name for name in names if why_no_name(name) is None}
        words = {shown[key] for key in keys if key in shown}
        word = words.pop() if len(words) == 1 else None
        for key, name in keys.items():
            # "Bat animal" only says which bat is meant.
            explained = any(key.startswith(f"{other} ") for other in keys)
            words_of.setdefault(key, []).append(None if explained or key in named else word)
            spelt[key] = name
    added: dict[int | None, list[str]] = {}
    for key, rows in words_of.items():
        if len(rows) == 1:
            added.setdefault(rows[0], []).append(spelt[key])
    return tuple(
        replace(entry, names=(*entry.names, *added.get(number, ()))[: engine.MAX_NAMES])
        for number, entry in enumerate(entries)
    )


# Numbers of a region, chosen by `python -m training evaluate --protocol scenes`: fewer found fewer scenes.
WIDTH = 64
# Every _EVERY-th photo is enough to fit components on.
_EVERY = 6
# A thing covers an eighth of its photos at least.
_SHOWING = 8
_ROUNDS = 3


def give_regions(source: Path, target: Path, *, recipe: Path, like: Path | None = None) -> None:
    """Writes a checkpoint with a projection of regions, fitted on training classes and ImageNet-1k, or ``like``'s.

    If it guesses things, it learns where regions show them, from ``recipe``. Raises ModelError without regions.
    """
    network = load_zse_network(source)
    projection = None if like is None else load_zse_network(like).projection
    if like is not None and projection is None:
        raise ModelError(f"{like} has no regions; leave --like out")
    if projection is None:
        data = corpus.data_folder()
        photos = (
            *corpus.read_data(data).of(corpus.read_split(data, "train")).photos,
            *corpus.read_imagenet(data).photos,
        )[::_EVERY]
        regions = _regions(source, photos)
        projection = engine.Projection.fit(regions.reshape(-1, regions.shape[2]), WIDTH)
    network, seen = network.projection_replaced(projection), None
    if network.vocabulary is not None and len(network.vocabulary.drawn):
        pictures = training_corpora(None, read_recipe(recipe))
        book = WordBook(network.config.words)
        photos = some_of_each(pictures.training.photos, PHOTOS_PER_CLASS)
        words = [word_of(photo.label, book) for photo in photos]
        shown = [photo for photo, word in zip(photos, words, strict=True) if word >= 0]
        of_word = corpus.rows_by_label(word for word in words if word >= 0)
        learned = with_regions(network.vocabulary, projection, _regions(source, shown), of_word)
        network, seen = network.vocabulary_replaced(learned, network.config.words), pictures.seen
    save_changed(network, source, target, seen)
    print(f"wrote {target}: {WIDTH} numbers of each region of a photo")


def with_regions(
    vocabulary: engine.Vocabulary, projection: engine.Projection, regions: engine.Floats, of_word: dict[int, list[int]]
) -> engine.Vocabulary:
    """Adds where regions (p, m, d) that show things lie: from whole photos' places to the nearest regions' means."""
    places = np.zeros((len(vocabulary.places), len(projection.axes)), np.float32)
    for thing, word in enumerate(vocabulary.drawn.tolist()):
        if word not in of_word:
            continue
        photos = regions[of_word[word]]
        place = vocabulary.places[thing] if vocabulary.places[thing].any() else photos.mean(axis=(0, 1))
        for _ in range(_ROUNDS):
            nearest = np.argsort(-(photos @ place), axis=1)[:, :_SHOWING]
            place = np.take_along_axis(photos, nearest[..., None], axis=1).mean(axis=(0, 1))
        places[thing] = projection(place)
    return replace(vocabulary, region_places=places)


def _regions(checkpoint: Path, photos: Sequence[corpus.Picture]) -> engine.Floats:
    """Computes the local [Ret] of photos' regions, (p, m, d) of length 1."""
    matcher = load(checkpoint)
    # Regions as they are.
    matcher.engine.projection = engine.Projection(np.eye(matcher.config.width, dtype=np.float32))
    regions = encode_pictures(matcher, photos, "photo").regions
    if regions is None:
        raise ModelError(f"{checkpoint} has no regions; only two-sided networks with an even patch grid have")
    return regions
