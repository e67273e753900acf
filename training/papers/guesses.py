"""Teaches checkpoints to guess what a sketch shows, by sketches of all kinds and styles, whole and cut from scenes."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from sketch_search.model import load
from sketch_search.model.engine import Floats, SeenClasses, Tokens, expectations
from sketch_search.model.errors import ImageError, ModelError
from sketch_search.model.images import open_image
from sketch_search.model.matcher import Matcher
from sketch_search.model.torch import Network
from sketch_search.model.torch.checkpoint import load_zse_network
from sketch_search.model.words import WordBook
from sketch_search.training import corpus
from sketch_search.training.corpus import Picture
from sketch_search.training.evaluation.scoring import encode_pictures
from sketch_search.training.papers.parting import compose
from sketch_search.training.papers.pictures import keep_tensors, pictures_key, training_corpora
from sketch_search.training.papers.tables import read_recipe
from sketch_search.training.papers.vocabulary import fit_guesses, fit_things, save_changed, word_of

# How many scenes are drawn to cut things from, by how many sketches of a kind and style at most, and how much a cut
# thing counts beside a sketch.
SCENES, PER_STYLE, PART_COUNTS = 7_000, 360, 0.5
# One sketch in so many calibrates guesses, and teaches none.
HELD_EVERY = 10
# Fresh sketches of each kind and style that are measured, and scenes that things are cut from for it.
MEASURED, MEASURED_SCENES = 8, 600
# The kinds of which all fresh sketches are measured, each style apart, and how many of the worst kinds are listed.
MOST_PHOTOGRAPHED, WORST = ("person", "dog", "horse"), 20
_BINS = 10
# How far guesses follow what usual photos show: with all of it, cows are dogs; chosen on fresh sketches of each style.
PRIOR = 1 / 3
# The style of things cut from drawn scenes.
PART_STYLE = "part"


@dataclass(frozen=True)
class Drawn:
    """Sketches that teach guesses: kind and style of each, and an encoder's summaries (n, e) float32."""

    labels: tuple[str, ...]
    styles: tuple[str, ...]
    summaries: torch.Tensor

    def shares(self) -> torch.Tensor:
        """Weighs sketches (n,): all alike, but those cut from scenes less. Balanced kinds and styles are worse."""
        return torch.tensor([PART_COUNTS if style == PART_STYLE else 1.0 for style in self.styles])


def give_guesses(source: Path, target: Path, *, recipe: Path) -> None:
    """Writes a checkpoint that guesses what ``recipe`` has sketches of. Raises ModelError."""
    pictures = training_corpora(None, read_recipe(recipe))
    sketches = pictures.training.sketches + pictures.further.sketches
    if corpus.FIGURE in pictures.seen.trained:
        sketches += corpus.split_fresh(corpus.Corpus(corpus.read_figures()))[0].sketches
    network, matcher = load_zse_network(source), load(source, variants=1)
    network = expecting(with_guesses(network, matcher, sketches, SCENES), matcher, read_usual_photos())
    book = WordBook(network.config.words)
    taught = frozenset(label for label in pictures.seen.trained if word_of(label, book) >= 0)
    save_changed(network, source, target, SeenClasses(taught))
    print(f"wrote {target}: it guesses {len(network.config.drawn)} things")


def with_guesses(network: Network, matcher: Matcher, sketches: Sequence[Picture], scenes: int) -> Network:
    """Fits guesses of all kinds at once; places of things stay. Kinds of line drawings alone need a word.

    matcher: encodes sketches as a search does.

    Raises ModelError if the places are those of other things.
    """
    book, before = WordBook(network.config.words), network.vocabulary
    known = sorted({sketch.label for sketch in sketches if sketch.source != corpus.DRAWINGS_PART})
    further = {sketch.label for sketch in sketches} - set(known)
    kinds = [*known, *sorted(label for label in further if word_of(label, book) >= 0)]
    words = [word_of(label, book) for label in kinds]
    if before is None or not known or len(before.drawn) < len(known) or _others(before.drawn[: len(known)], words):
        raise ModelError("the checkpoint's guesses were learned from sketches of other things than these")
    numbers = {kind: number for number, kind in enumerate(kinds)}
    taught, held = read_drawn(matcher, [sketch for sketch in sketches if sketch.label in numbers], scenes)
    things, others = (torch.tensor([numbers[label] for label in drawn.labels]) for drawn in (taught, held))
    directions, biases = fit_things(taught.summaries, things, taught.shares())
    count = len(kinds) - len(known)
    after = replace(
        before,
        drawn=np.array(words, np.int64),
        sketch_directions=directions.numpy(),
        sketch_biases=biases.numpy(),
        places=np.pad(before.places[: len(known)], ((0, count), (0, 0))),
        region_places=np.empty((0, 0), np.float32),
    )
    vectors = torch.nn.functional.normalize(held.summaries, dim=1)
    scale, none = fit_guesses(vectors @ directions.T + biases, others)
    return network.vocabulary_replaced(replace(after, guess_scale=scale, guess_none=none), network.config.words)


def expecting(network: Network, matcher: Matcher, photos: Sequence[Picture]) -> Network:
    """Adds a prior to guesses: by Bayes' rule, what photos show more often is more likely to be drawn."""
    vocabulary = network.vocabulary
    if vocabulary is None or not photos:
        return network
    presence = vocabulary.presence(encode_pictures(matcher, photos, "photo").ret)[:1]
    raised = np.float32(PRIOR / vocabulary.guess_scale) * np.log(expectations(presence))
    biases = np.asarray(vocabulary.sketch_biases + raised, np.float32)
    return network.vocabulary_replaced(replace(vocabulary, sketch_biases=biases), network.config.words)


def read_usual_photos() -> list[Picture]:
    """Reads the optional data's photos as a person's folder holds them; those that cannot be opened are left out."""
    photos, folder = list[Picture](), corpus.unpack(corpus.data_folder() / "data" / corpus.UNLABELLED)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with suppress(ImageError):
            open_image(path)
            photos.append(Picture(path, "", ""))
    return photos


def _others(drawn: NDArray[np.int64], words: Sequence[int]) -> bool:
    """True if things have other words than these. The word of a thing may be newer than its guess."""
    return any(number not in (-1, word) for number, word in zip(drawn.tolist(), words, strict=False))


def read_drawn(matcher: Matcher, sketches: Sequence[Picture], scenes: int) -> tuple[Drawn, Drawn]:
    """Encodes sketches, whole and as parts of so many scenes: those that teach, and those that calibrate.

    If there are too few to hold some back, the former calibrate, too.
    """
    rows_of = corpus.rows_by_label((sketch.label, sketch.source) for sketch in sketches).values()
    held = {row for rows in rows_of for row in rows[HELD_EVERY::HELD_EVERY]}
    placed = [row for rows in rows_of for row in rows[:: -(-len(rows) // PER_STYLE)]]

    def encode(rows: Collection[int], count: int, seed: int) -> Drawn:
        of_scenes = [sketches[row] for row in placed if row in rows]
        return encode_drawn(matcher, [sketches[row] for row in sorted(rows)], of_scenes, count, seed)

    taught = encode(set(range(len(sketches))) - held, scenes, 0)
    return taught, encode(held, scenes // HELD_EVERY, 1) if held else taught


def encode_drawn(
    matcher: Matcher, sketches: Sequence[Picture], of_scenes: Sequence[Picture], scenes: int, seed: int
) -> Drawn:
    """Encodes sketches, and what is seen of others in so many scenes; both are kept in the cache. Raises ModelError."""
    # An encoder is known by what it makes of a sketch.
    first = np.round(encode_pictures(matcher, sketches[:1], "sketch").guessed_from, 2).tobytes()

    def keep(pictures: Sequence[Picture], what: str, encode: Callable[[], dict[str, torch.Tensor]]) -> torch.Tensor:
        key = sha256(f"{pictures_key(pictures, 'sketch', matcher.preprocessing)} {what}".encode() + first).hexdigest()
        kept = keep_tensors(corpus.cache_folder() / "summaries" / f"{key[:16]}.safetensors", encode)
        parts.extend(kept["kinds"].tolist())
        return kept["summaries"]

    def whole(pictures: Sequence[Picture]) -> dict[str, torch.Tensor]:
        summaries = encode_pictures(matcher, pictures, "sketch").guessed_from
        return {"summaries": torch.from_numpy(summaries.astype(np.float32)), "kinds": torch.empty(0, dtype=torch.int64)}

    def seen() -> dict[str, torch.Tensor]:
        rows = list[tuple[int, Floats]]()
        for kind, image in tqdm(cut_parts(of_scenes, scenes, seed), desc="drawing scenes", unit="thing", disable=None):
            # What is left of a covered thing may be too little to be a drawing.
            with suppress(ImageError):
                pixels = matcher.preprocessing.prepare(image, "sketch")
                rows.append((kind, matcher.encode(pixels[None], "sketch", 1).guessed_from[0].astype(np.float32)))
        summaries = np.stack([summary for _, summary in rows])
        return {"summaries": torch.from_numpy(summaries), "kinds": torch.tensor([kind for kind, _ in rows])}

    parts, styles = list[int](), corpus.rows_by_label(sketch.source for sketch in sketches)
    order = [row for rows in styles.values() for row in rows]
    encoded = [keep(of, "", partial(whole, of)) for of in ([sketches[row] for row in rows] for rows in styles.values())]
    if scenes and of_scenes:
        encoded.append(keep(of_scenes, f"{scenes} {seed}", seen))
    kinds = sorted({sketch.label for sketch in of_scenes})
    labels = [sketches[row].label for row in order] + [kinds[kind] for kind in parts]
    sources = [sketches[row].source for row in order] + [PART_STYLE] * len(parts)
    return Drawn(tuple(labels), tuple(sources), torch.cat(encoded))


def cut_parts(sketches: Sequence[Picture], scenes: int, seed: int) -> Iterator[tuple[int, Image.Image]]:
    """Draws scenes of several sketches, touched and half covered; yields the visible ink of each, with its kind.

    Kinds are numbered in the order of their names. All are drawn equally often, and so are the styles of a kind.
    """
    rows_of = corpus.rows_by_label((sketch.label, sketch.source) for sketch in sketches)
    of_kind = corpus.rows_by_label(label for label, _ in rows_of)
    styles, kinds = list(rows_of.values()), sorted(of_kind)
    alike = [[sketches[row] for row in _repeat([styles[number] for number in of])] for of in of_kind.values()]
    names = list(of_kind)
    for number in range(scenes):
        layers, chosen = compose(alike, np.random.default_rng([seed, number]))
        for layer, kind in zip(layers, chosen, strict=True):
            yield kinds.index(names[kind]), Image.fromarray(255 - layer).convert("RGB")


def _repeat(styles: Sequence[Sequence[int]]) -> list[int]:
    """Repeats the rows of each style until all have nearly as many."""
    most = max(map(len, styles))
    return [row for rows in styles for row in list(rows) * (most // len(rows))]


@dataclass(frozen=True)
class Guessed:
    """Guesses for n sketches: kinds, styles; (n,) whether the first is right, and any of three; (n,) probabilities."""

    kinds: NDArray[np.str_]
    styles: NDArray[np.str_]
    first: NDArray[np.bool_]
    three: NDArray[np.bool_]
    probable: NDArray[np.floating]

    def figures(self, rows: NDArray[np.bool_]) -> dict[str, float]:
        """Computes the mean over kinds, of which each style counts alike, and the expected calibration error."""
        keys = corpus.rows_by_label(zip(self.kinds[rows].tolist(), self.styles[rows].tolist(), strict=True))
        shares = np.zeros(int(rows.sum()))
        styles = corpus.rows_by_label(kind for kind, _ in keys)
        for (kind, _), of in keys.items():
            shares[of] = 1 / (len(of) * len(styles[kind]) * len(styles))
        bins = np.minimum((self.probable[rows] * _BINS).astype(int), _BINS - 1)
        surplus = np.bincount(bins, shares * (self.probable[rows] - self.first[rows]), _BINS)
        return {
            "count": int(rows.sum()),
            "kinds": len(styles),
            "first": float(shares @ self.first[rows]),
            "of three": float(shares @ self.three[rows]),
            "calibration error": float(np.abs(surplus).sum()),
        }

    def rows(self) -> dict[str, dict[str, float]]:
        """Returns the figures of everything, of each style, of the kinds of most photos by style, and of the worst."""
        rows = {"all": np.ones(len(self.kinds), bool)}
        rows |= {f"style {style}": self.styles == style for style in sorted(set(self.styles.tolist()))}
        for kind in MOST_PHOTOGRAPHED:
            of_kind = self.kinds == kind
            named = {style: of_kind & (self.styles == style) for style in sorted(set(self.styles[of_kind].tolist()))}
            rows |= {f"{kind}, {style}": row for style, row in named.items()}
        figures = {name: self.figures(row) for name, row in rows.items()}
        of_kinds = {f"worst: {kind}": self.figures(self.kinds == kind) for kind in sorted(set(self.kinds.tolist()))}
        worst = sorted(of_kinds.items(), key=lambda row: (row[1]["first"], row[1]["of three"]))
        return figures | dict(worst[:WORST])


def measure_styles(matcher: Matcher) -> Guessed:
    """Measures guesses for fresh sketches of every kind that the matcher guesses, in every style of drawing.

    Whole sketches are encoded as a search does, in the matcher's variants, and things that are cut from scenes in one.
    A guess is right if it is the word of the kind, or another word for the same thing. Raises ModelError.
    """
    if matcher.engine.vocabulary is None:
        raise ModelError(f"this checkpoint ({matcher.config.name}) has no vocabulary, and guesses nothing")
    guessed = {number for number in matcher.engine.vocabulary.drawn.tolist() if number >= 0}
    fresh = read_fresh()
    words = {label: word_of(label, matcher.book) for label in {sketch.label for sketch in fresh}}
    fresh = tuple(sketch for sketch in fresh if words[sketch.label] in guessed)
    rows_of = corpus.rows_by_label((sketch.label, sketch.source) for sketch in fresh)
    few = [fresh[row] for rows in rows_of.values() for row in rows[:MEASURED]]
    more = [fresh[row] for (label, _), rows in rows_of.items() if label in MOST_PHOTOGRAPHED for row in rows[MEASURED:]]
    drawn = encode_drawn(matcher, few + more, few, MEASURED_SCENES, seed=2)
    rows = list[tuple[bool, bool, float]]()
    for label, summary in zip(drawn.labels, drawn.summaries.numpy(), strict=True):
        guesses = matcher.guesses(Tokens.of_ret(summary[None]), 0.0)
        named = {matcher.words[number] for number in matcher.book.alike(words[label])}
        right = [guess.word in named for guess in guesses]
        rows.append((right[0], any(right), guesses[0].probability))
    first, three, probable = (np.array(column) for column in zip(*rows, strict=True))
    return Guessed(np.array(drawn.labels), np.array(drawn.styles), first, three, probable)


def read_fresh() -> tuple[Picture, ...]:
    """Reads the fresh sketches of all sets."""
    folder = corpus.data_folder()
    data = corpus.read_both(folder)
    lines = corpus.read_line_drawings(folder, ("val", "ship"))
    sketches = data.sketches + corpus.read_drawings(folder) + corpus.read_pacs(folder) + lines + corpus.read_figures()
    return corpus.split_fresh(corpus.Corpus(sketches, data.photos))[1].sketches
