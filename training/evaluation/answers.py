"""Measures guesses, where matching patches lie, and costs; finds which classes a checkpoint has seen."""

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from sketch_search.model import engine
from sketch_search.model.errors import ModelError
from sketch_search.model.explanation import PairExplanation
from sketch_search.model.images import open_image
from sketch_search.model.matcher import Matcher
from sketch_search.model.search import Plan, Query, gallery_of, rank
from sketch_search.model.torch import ClipEmbedder, Network, RetNetwork, find_clip
from sketch_search.model.words import WordBook, spelling
from sketch_search.training.corpus import Corpus, Picture, find_drawn_photos, rows_by_label
from sketch_search.training.evaluation.figures import Evaluation, relevance
from sketch_search.training.evaluation.scoring import encode_pictures
from sketch_search.training.tasks import UNSEEN, Task, class_key

# The name of the group of queries whose classes no checkpoint has seen.
ZERO_SHOT = "zero-shot"
_MOST_NAMED = 12


@dataclass(frozen=True)
class Contamination:
    """Queried classes a checkpoint was trained on, chosen on, and never saw; known: whether it lists them.

    near: those whose names contain a seen class, each with it. compared, copies: how many training pictures the task's
    pictures were compared with by their contents, and how many of the task's are among them.
    """

    trained: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    zero_shot: tuple[str, ...] = ()
    known: bool = True
    near: tuple[tuple[str, str], ...] = ()
    compared: int = 0
    copies: int = 0

    @property
    def seen(self) -> tuple[str, ...]:
        return tuple(sorted({*self.trained, *self.chosen}))

    def sentence(self, name: str) -> str:
        """Describes for a reader of figures what the checkpoint ``name`` has seen, and what was compared."""
        if not self.known:
            return f"{name} does not say which classes it has seen, so that none may be called zero-shot"
        count = len(self.seen) + len(self.zero_shot)
        if not self.seen:
            sentence = f"{name} has seen none of the {count} classes: all are zero-shot"
        else:
            sentence = f"{name} was trained on {len(self.trained)} of the {count} classes"
            sentence += f" and chosen on {len(self.chosen)}: " if self.chosen else ": "
            few = ", ".join(self.zero_shot[:_MOST_NAMED]) + (", ..." if len(self.zero_shot) > _MOST_NAMED else "")
            sentence += f"{len(self.zero_shot)} zero-shot ({few})" if few else "none is zero-shot"
        sentence += ", by names, synonyms and plurals"
        if self.compared:
            copies = f"{self.copies} of these pictures are" if self.copies else "none of these pictures is"
            sentence += f"; {copies} among its {self.compared:,} training pictures at hand"
        near = ", ".join(f"{label} ({seen})" for label, seen in self.near)
        return sentence + (f"; check names near to seen ones: {near}" if near else "")


def contamination(task: Task, seen: engine.SeenClasses | None, training: Iterable[Picture] = ()) -> Contamination:
    """Compares a task's classes with those seen; None if unlisted. training: their pictures, compared by content."""
    if seen is None:
        return Contamination(known=False)
    classes = sorted(task.groups.get(UNSEEN) or {sketch.label for sketch in task.corpus.sketches})
    trained, chosen = ({_thing(label)[0]: label for label in labels} for labels in (seen.trained, seen.chosen))
    things, known = {label: _thing(label) for label in classes}, trained | chosen
    new = tuple(label for label, (thing, _) in things.items() if thing not in known)
    near = tuple((label, known[part]) for label in new for part in things[label][1] if part in known)
    pictures = tuple(picture for picture in training if picture.label in seen.trained)
    return Contamination(
        trained=tuple(label for label, (thing, _) in things.items() if thing in trained),
        chosen=tuple(label for label, (thing, _) in things.items() if thing in chosen),
        zero_shot=new,
        near=near,
        compared=len(pictures),
        copies=_copies((*task.corpus.sketches, *task.corpus.photos), pictures),
    )


@cache
def _book() -> WordBook:
    config = engine.config_on_photo_side(engine.default_checkpoint("default"))
    return WordBook(config.words if config else ())


@cache
def _thing(label: str) -> tuple[str, tuple[str, ...]]:
    """Returns one name for all names of what a class shows, and if it is a phrase, the things named in it."""
    key, book = class_key(label), _book()
    with suppress(ModelError):  # an unknown word is its own name
        reading = book.read(key)
        things = tuple(class_key(book.words[meant[0]]) for meant in reading.things)
        if reading.text != spelling(key):
            return key, things
        if len(reading.things) == len(reading.things[0]) == 1:
            return things[0], ()
    return key, ()


def _copies(pictures: Iterable[Picture], training: Iterable[Picture]) -> int:
    """Counts the pictures whose bytes are those of a training picture."""
    paths = {picture.path for picture in training}
    sizes = {path.stat().st_size for path in paths}
    alike = [picture.path for picture in pictures if picture.path.stat().st_size in sizes]
    sizes_alike = {path.stat().st_size for path in alike}
    known = {engine.file_sha256(path) for path in paths if path.stat().st_size in sizes_alike}
    return sum(engine.file_sha256(path) in known for path in alike)


def with_zero_shot(task: Task, reports: list[Contamination]) -> Task:
    """Makes a group of the classes that no checkpoint has seen, if that is neither all nor none, nor unknown."""
    seen = {label for report in reports for label in report.seen}
    new = frozenset(label for report in reports for label in report.zero_shot) - seen
    if not seen or not new or not all(report.known for report in reports) or task.each_class:
        return task
    return replace(task, groups={**task.groups, ZERO_SHOT: new})


# The number of results that are measured, as in the report of the two-stage system.
TOP = 100
# The number of photos that are opened before CLIP embeds them.
_EMBEDDED = 64
# The number of pairs compared at once, and how often each speed is measured.
COMPARED, TRIES = 32, 5


def costs_of(network: RetNetwork) -> dict[str, float]:
    """Counts parameters, and by PyTorch's counter multiply-adds of a photo and of a pair; 0 if it compares no pairs."""
    side = network.config.image_size
    blank = torch.zeros(1, 3, side, side)

    of_photo, of_pair = (FlopCounterMode(display=False) for _ in range(2))
    with sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        with of_photo:
            tokens = network.encode(blank, "photo")
        if isinstance(network, Network):
            sketch, photo = network.project(network.encode(blank, "sketch"), "sketch"), network.project(tokens, "photo")
            with of_pair:
                network.relate(sketch, photo)
    counts = sum(tensor.numel() for tensor in network.parameters()) / 1e6, of_photo.get_total_flops() / 2e9
    return {"M parameters": counts[0], "G a photo": counts[1], "M a pair": of_pair.get_total_flops() / 2e6}


def speeds_of(network: RetNetwork) -> dict[str, float]:
    """Counts a step's multiply-adds, and times a photo alone, and pairs, COMPARED at once, by the shortest of TRIES."""
    side = network.config.image_size
    blank, learning = torch.zeros(1, 3, side, side), copy.deepcopy(network).requires_grad_(True)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        torch.autograd.backward(learning.encode(blank, "photo").ret.sum())

    def milliseconds(work: Callable[[], object]) -> float:
        times = []
        for _ in range(TRIES):
            # CPU time of one thread: other programs lengthen it less than wall time.
            began = time.thread_time()
            work()
            times.append(time.thread_time() - began)
        return 1000 * min(times)

    with torch.inference_mode():
        of_pair, of_photo = 0.0, milliseconds(lambda: network.encode(blank, "photo"))
        if isinstance(network, Network):
            sketch = network.project(network.encode(blank, "sketch"), "sketch")
            photo = network.project(network.encode(blank, "photo"), "photo")
            photos = photo.rows(torch.zeros(COMPARED, dtype=torch.int64))
            of_pair = milliseconds(lambda: network.relate(sketch, photos)) / COMPARED
    return {"G to learn from a photo": counter.get_total_flops() / 2e9, "ms a photo": of_photo, "ms a pair": of_pair}


def search_in_two_stages(
    matcher: Matcher,
    corpus: Corpus,
    tokens: tuple[engine.Tokens, engine.Tokens],
    vectors: engine.Floats,
    clusters: int,
    nprobe: int,
) -> tuple[dict[str, NDArray[np.float64]], dict[str, float]]:
    """Searches by every sketch as the two-stage system does, and measures the first TOP results.

    Figures are over min(TOP, relevant), with photos of other than the ``nprobe`` best clusters, or so many that they
    hold TOP, as lost. tokens: of ``encode_both``. vectors: (p, e), for k-means. Returns "map_100" and "precision_100",
    (q,), and means: average precision by the report's code, pairs, seconds, square distance from centroids, and the
    share of photos that are of the most frequent class of their cluster.
    Raises ModelError for fewer photos than clusters.
    """
    queries, photos = tokens
    if len(photos) < clusters:
        raise ModelError(f"{len(photos)} photos cannot make {clusters} clusters; name a folder of more photos")
    points = engine.unit(vectors)
    gallery = gallery_of(photos, matcher, clusters, points)
    plan, relevant, rows = Plan.two_stage(TOP, nprobe), relevance(corpus), []
    for row in np.flatnonzero(relevant.any(axis=1)):
        # CPU time: other programs lengthen it less than wall time.
        began = time.process_time()
        query = Query(plan.method, gallery.clusters.mean, queries[row : row + 1], plain=True)
        ranking = rank(gallery, matcher, query, plan)
        seconds = time.process_time() - began
        hits, least = relevant[row, ranking.photos.ids[:TOP]], min(TOP, int(relevant[row].sum()))
        precision = hits.cumsum() / np.arange(1, len(hits) + 1)
        area = (np.maximum.accumulate(precision[::-1])[::-1] * hits).sum()
        by_report = (precision * hits).sum() / max(1, hits.sum())
        # Of a single cluster nothing is chosen.
        pairs = ranking.pairs - (clusters == 1)
        rows.append((area / least, hits[:least].sum() / least, by_report, pairs, seconds))
    values, names = np.array(rows), (f"mAP@{TOP} by the report's code", "pairs", "CPU seconds a query")
    costs = dict(zip(names, values[:, 2:].mean(axis=0).tolist(), strict=True))
    members = np.split(points[gallery.ids], gallery.clusters.ends[:-1])
    spread = sum(float(((members_of - members_of.mean(axis=0)) ** 2).sum()) for members_of in members)
    kinds = np.split(np.array([photo.label for photo in corpus.photos])[gallery.ids], gallery.clusters.ends[:-1])
    most = sum(int(np.unique(members_of, return_counts=True)[1].max()) for members_of in kinds)
    costs |= {"distance from centroids": spread / len(photos), "purity": most / len(photos)}
    return {"map_100": values[:, 0], "precision_100": values[:, 1]}, costs


def clip_vectors(photos: Sequence[Picture], source: str) -> tuple[engine.Floats | None, str]:
    """Embeds photos by a CLIP on this disk: (p, e) float32, and its name; or None, and the reason."""
    if find_spec("open_clip") is None:
        return None, "open_clip is not installed"
    try:
        clip = find_clip(source, download=False)
        embedder = ClipEmbedder(*clip.open("cpu"), "cpu", clip.model)
    except ModelError as error:
        return None, str(error)
    parts = (photos[start : start + _EMBEDDED] for start in range(0, len(photos), _EMBEDDED))
    prepared = ([embedder.prepare(open_image(picture.path)) for picture in part] for part in parts)
    return np.concatenate([embedder.embed(part) for part in prepared]), clip.name


COMPOSITES, PAIRS = 200, 250
QUARTERS = 4
# The order of two patches of a sketch is measured if they are this far apart, as a share of its side.
_APART = 0.3
CHANCE = 1 / QUARTERS


def measure_guesses(matcher: Matcher, task: Task) -> Evaluation:
    """Measures the guesses for a task's sketches, see ``Matcher.guesses``. Raises ModelError without words.

    named: whether a word of the vocabulary names the thing; only these can be guessed. first, among: whether the first
    guess is this word, or one for the same thing, and whether any is. shown: how many guesses there are.
    """
    if not matcher.words:
        raise ModelError(f"this checkpoint ({matcher.config.name}) has no vocabulary, and guesses nothing")
    sketches = task.corpus.sketches
    tokens = encode_pictures(matcher, sketches, "sketch")
    rows = []
    for row, sketch in enumerate(sketches):
        number = matcher.book.of_class(sketch.label)
        right = set() if number is None else {matcher.words[word] for word in matcher.book.alike(number)}
        guesses = [guess.word in right for guess in matcher.guesses(tokens[row : row + 1])]
        rows.append((number is not None, any(guesses[:1]), any(guesses), len(guesses)))
    columns = dict(zip(("named", "first", "among", "shown"), np.array(rows, np.float64).T, strict=True))
    groups = {name: np.array([s.label in labels for s in sketches]) for name, labels in task.groups.items()}
    return Evaluation.of(Corpus(sketches), sketches, {"guesses": columns}, groups)


@dataclass(frozen=True)
class Composite:
    """A sketch, and photos of four classes; ``photos[quarter]``, counted row by row, has the sketch's class."""

    sketch: Picture
    photos: tuple[Picture, ...]
    quarter: int


def choose_composites(corpus: Corpus, count: int) -> tuple[Composite, ...]:
    """Chooses composites: classes in turn, quarters equally often. Raises ModelError if there are too few classes."""
    photos, sketches = (rows_by_label(p.label for p in pictures) for pictures in (corpus.photos, corpus.sketches))
    sketches = {label: rows for label, rows in sketches.items() if label in photos}
    if len(photos) < QUARTERS or not sketches:
        counts = f"there are photos of {len(photos)} and sketches of {len(sketches)} of these"
        raise ModelError(f"composites need photos of {QUARTERS} classes and a sketch of one of them; {counts}")
    chance = np.random.default_rng(0)
    labels = [str(label) for label in chance.permutation(sorted(sketches))]
    quarters = chance.permutation(np.arange(count) % QUARTERS).tolist()

    def one_of(pictures: Sequence[Picture], rows: list[int]) -> Picture:
        return pictures[rows[int(chance.integers(len(rows)))]]

    chosen = []
    for number, quarter in enumerate(quarters):
        label = labels[number % len(labels)]
        others = chance.choice(sorted(photos.keys() - {label}), QUARTERS - 1, replace=False).tolist()
        around = [one_of(corpus.photos, photos[name]) for name in (*others[:quarter], label, *others[quarter:])]
        chosen.append(Composite(one_of(corpus.sketches, sketches[label]), tuple(around), quarter))
    return tuple(chosen)


def compose(photos: Sequence[Image.Image], size: int) -> Image.Image:
    """Squashes four photos to the quarters of a (size, size) canvas. The size is even."""
    half = size // 2
    canvas = Image.new("RGB", (size, size))
    for quarter, photo in enumerate(photos):
        canvas.paste(photo.resize((half, half), Image.Resampling.BICUBIC), (quarter % 2 * half, quarter // 2 * half))
    return canvas


def quarters_of(cells: engine.Numbers, grid: int) -> engine.Numbers:
    """Finds the quarter in which the centre of each cell lies, in the shape of ``cells``."""
    down, across = cells // grid, cells % grid
    return np.int64(2) * (2 * down + 1 > grid) + (2 * across + 1 > grid)


def measure_parts(matcher: Matcher, corpus: Corpus, drawn: Corpus, canvases: int = COMPOSITES) -> dict[str, Evaluation]:
    """Measures whether matches lie on the thing of ``corpus``, by canvas, and in its order of ``drawn``, by pair.

    right: the share of the sketch tokens whose best match lies in the right quarter; by chance CHANCE. tokens: the
    share of the canvas's compared tokens that lie there, from which the selection moves CHANCE. most: whether more
    sketch tokens point there than at any other quarter. order: the share of distant sketch tokens, by columns and by
    rows, whose matches keep their order; by chance 0.5. places: different matches, for each sketch token.

    Returns no pairs if ``drawn`` has none. Raises ModelError for too few classes.
    """
    composites = choose_composites(corpus, canvases)
    rows = []
    for composite in tqdm(composites, desc="explaining", unit="canvas", disable=None):
        canvas = compose([open_image(photo.path) for photo in composite.photos], matcher.config.image_size)
        explanation = matcher.explain(open_image(composite.sketch.path, sketch=True), canvas)
        # The sketch tokens that have their best match in each quarter.
        best = np.array([photo for _, photo, _ in explanation.matches()], np.int64)
        pointed = np.bincount(quarters_of(best, explanation.grid), minlength=QUARTERS)
        there = quarters_of(explanation.photo_cells, explanation.grid) == composite.quarter
        right, others = pointed[composite.quarter], pointed[np.arange(QUARTERS) != composite.quarter]
        rows.append((float(right / pointed.sum()), float(there.mean()), float(right > others.max())))
    targets, kept = find_drawn_photos(drawn), list[tuple[float, float]]()
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(targets >= 0))[:PAIRS]
    for row in tqdm(chosen.tolist(), desc="explaining", unit="pair", disable=None):
        sketch = open_image(drawn.sketches[row].path, sketch=True)
        kept.append(order_kept(matcher.explain(sketch, open_image(drawn.photos[targets[row]].path))))

    def evaluate(sketches: tuple[Picture, ...], rows: Sequence[tuple[float, ...]], *names: str) -> Evaluation:
        columns = dict(zip(names, np.array(rows).T, strict=True))
        return Evaluation.of(Corpus(sketches), sketches, {"matches": columns}, {})

    parts = {"canvases": evaluate(tuple(c.sketch for c in composites), rows, "right", "tokens", "most")}
    pairs = tuple(drawn.sketches[row] for row in chosen)
    return parts | ({"pairs": evaluate(pairs, kept, "order", "places")} if kept else {})


def order_kept(explanation: PairExplanation) -> tuple[float, float]:
    """Returns the share of tokens _APART whose matches keep their order, equal places half, and matches for each."""
    grid, matches = explanation.grid, explanation.matches()
    cells = np.array([(sketch, photo) for sketch, photo, _ in matches], np.int64)
    shares = []
    for along in (cells % grid, cells // grid):
        drawn, matched = (column[:, None] - column for column in along.T)
        distant = drawn > _APART * grid
        shares += [(np.sign(matched[distant]) + 1) / 2]
    both = np.concatenate(shares)
    return float(both.mean()) if len(both) else 0.5, len(set(cells[:, 1].tolist())) / len(cells)
