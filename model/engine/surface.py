"""Defines what a search asks of an engine that runs networks, what an engine knows of words, and its threads."""

from __future__ import annotations

import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketch_search.model.engine.config import Calibration, Modality, NetworkConfig
from sketch_search.model.engine.parting import Parting, count_features
from sketch_search.model.engine.tokens import Floats, Numbers, Tokens, as_floats, cosines, softmax, unit
from sketch_search.model.errors import ModelError

# The sharpness of a log-mean-exp, between the mean and the maximum over prototypes, chosen on validation classes.
SHARPNESS = 12.0
# The weight of a photo's other words against a word: 0 ranks photos by the word's logit, 1 by its probability among
# all words. Chosen by mean average precision on training photos that the fit did not see.
SHARE = 0.5
# The sharpness of the things' places for deciding which thing a photo shows. Values from 20 to 45 hardly differ.
NEARNESS = 30.0
# The likeliest things of a sketch by which photos are compared first, in a tenth of the time that all things take.
LIKELY = 8
# The least probability of a guess by which photos are compared: the others have half a thousandth together.
LEAST_GUESSED = 1e-5
# Sketches whose guesses are kept, 3 kB each: a search asks for them ten times.
GUESSES_KEPT = 64
# How present any thing is in a gallery at least, in units of the thing in the middle.
LEAST_PRESENT = 0.01
# The number of words, the likeliest for one photo, by which others are compared with it: all words find no more.
SHARED_WORDS = 16
Arrays = Mapping[str, ArrayLike]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Prior:
    """Lowers the scores of photos that are near sketches of trained things in any case.

    Training pulls sketches towards the photos of trained things, those of new things, too. With c_k the cosine of the
    photo's [Ret] and prototype k of the training sketches,

    prior = log(mean_k exp(SHARPNESS c_k)) / SHARPNESS - level.

    The idea is that of calibrated stacking (Chao et al., ECCV 2016), for photos in the place of classes.

    prototypes: (k, d) float32, L2-normalised [Ret] of training sketches, or means of sketches that lie together.
    level: the mean over training and other photos, so that scores keep their range.
    ret_weight, relation_weight: how much cosines of [Ret] and relation logits are lowered for a prior of 1.
    """

    prototypes: Floats
    level: float
    ret_weight: float
    relation_weight: float

    @staticmethod
    def of(arrays: Arrays) -> Prior:
        numbers = (float(np.asarray(arrays[name])) for name in ("level", "ret_weight", "relation_weight"))
        return Prior(np.asarray(arrays["prototypes"], np.float32), *numbers)

    def arrays(self) -> dict[str, Any]:
        """Returns the arrays from which ``of`` makes a prior."""
        return dict(vars(self))

    def __call__(self, ret: NDArray[Any]) -> Floats:
        """[Ret] of photos (n, d), any scale -> (n,) float32 priors."""
        near = _exponentials(SHARPNESS, unit(ret) @ self.prototypes.T)
        return np.asarray(np.log(near.mean(axis=1)) / np.float32(SHARPNESS) - np.float32(self.level))


@dataclass(frozen=True)
class Vocabulary:
    """Describes the content of a picture in words.

    With r the [Ret] of a photo, normalised, z_w = d_w . r + b_w is the logit of word w, and the softmax over all words
    that were fitted on photos is how probable each is. A photo's score for a word, by which photos are compared, is

    score_w = z_w - SHARE log(sum_v exp(z_v)), v any word that was fitted.

    Guesses for sketches are learned from sketches, because sketches and photos differ. With s the summary of a sketch,
    or its [Ret] if the encoder gives no summary, normalised, y_k = e_k . s + c_k is the logit of the k-th thing of
    which there were sketches. There may be no word for a thing, and a sketch may show none of these things. So the
    guesses are a softmax over guess_scale y_k for all things and guess_none for none of them, and a word is as probable
    as the things that it names. Without sketches the things are the words, and y is z.

    drawn: (k,) int64, for each thing the number of its word; -1 if no word names it. Empty without sketches.
    directions: (w, d). biases: (w,).
    sketch_directions: (k, e), e. sketch_biases: (k,), c. Those of words without sketches.
    places: (k, d), where photos of each thing lie, of length 1; zeros if this is not known.
    region_places: (k, r), the same for regions that show it, projected; no rows if regions were not looked at.
    guess_scale, guess_none: chosen on sketches that were not trained on.
    ret_gain, relation_gain: chosen on validation classes; 0 if guesses do not lead, and without sketches.
    placed: how many words, the last ones, were not fitted on photos.
    """

    drawn: NDArray[np.int64]
    directions: Floats
    biases: Floats
    sketch_directions: Floats
    sketch_biases: Floats
    places: Floats
    guess_scale: float
    guess_none: float
    ret_gain: float
    relation_gain: float
    region_places: Floats = field(default_factory=lambda: np.empty((0, 0), np.float32))
    placed: int = 0

    @staticmethod
    def of(arrays: Arrays, drawn: Sequence[int], placed: int = 0) -> Vocabulary:
        values: dict[str, Any] = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        if not drawn:
            nowhere = np.zeros_like(values["directions"])
            values |= {"sketch_directions": values["directions"], "sketch_biases": values["biases"], "places": nowhere}
        for name in ("guess_scale", "guess_none", "ret_gain", "relation_gain"):
            values[name] = float(values.get(name, 0.0))
        return Vocabulary(np.array(drawn, np.int64), **values, placed=placed)

    def arrays(self) -> dict[str, Any]:
        """Returns the arrays from which ``of`` makes a vocabulary."""
        of_words = ("directions", "biases", "guess_scale", "guess_none")
        of_things = ("sketch_directions", "sketch_biases", "places", "ret_gain", "relation_gain")
        of_regions = ("region_places",) if len(self.region_places) else ()
        return {name: getattr(self, name) for name in of_words + (of_things + of_regions if len(self.drawn) else ())}

    def logits(self, ret: NDArray[Any], words: Sequence[int] | slice = slice(None)) -> Floats:
        """[Ret] (n, d), any scale -> (n, w) float32 logits of these words."""
        chosen = words if isinstance(words, slice) else np.asarray(words, np.int64)
        return unit(ret) @ self.directions[chosen].T + self.biases[chosen]

    def levels(self, ret: NDArray[Any]) -> Floats:
        """[Ret] of photos (n, d) -> (n,) float32, the level that is subtracted from their logits to get scores."""
        return np.float32(SHARE) * logsumexp(self.logits(ret, slice(len(self.biases) - self.placed)))

    def alike(self, examples: NDArray[Any], ret: NDArray[Any]) -> Floats:
        """Compares what words say of photos (p, d) with what they say of examples (e, d): (p, e) float32 in 0..1.

        It is the Bhattacharyya coefficient sum_w sqrt(p_w q_w) of how probable words are, over the SHARED_WORDS
        likeliest words of each example.
        """
        fitted = slice(len(self.biases) - self.placed)
        probable, photos = softmax(self.logits(examples, fitted)), self.logits(ret, fitted)
        roots = np.exp((photos - logsumexp(photos)[:, None]) / 2)
        likeliest = np.argsort(-probable, axis=1)[:, :SHARED_WORDS]
        return np.stack([roots[:, of] @ np.sqrt(q[of]) for of, q in zip(likeliest, probable, strict=True)], 1)

    def things(self, sketches: Tokens) -> Floats:
        """Computes the logits y of the things that n sketches may show, (n, k) float32."""
        return unit(sketches.guessed_from) @ self.sketch_directions.T + self.sketch_biases

    def guess_things(self, sketches: Tokens) -> Floats:
        """Computes how probably n sketches show each thing: (n, k) float32; zeros for a photo without summary.

        What the gallery shows (``Tokens.expects``) moves probability between things, but leaves their sum: it does not
        say whether a sketch shows any of them.
        """
        summaries, expects = sketches.guessed_from, sketches.expects
        if summaries.shape[1] != self.sketch_directions.shape[1]:
            return np.zeros((len(sketches), len(self.sketch_biases)), np.float32)
        expected = [b""] * len(summaries) if expects is None else [row.astype(np.float32).tobytes() for row in expects]
        rows = [
            self._guessed(row.tobytes(), of_row) for row, of_row in zip(as_floats(summaries), expected, strict=True)
        ]
        return np.array(rows, np.float32).reshape(-1, len(self.sketch_biases))

    @cached_property
    def _guessed(self) -> Callable[[bytes, bytes], Floats]:
        return lru_cache(GUESSES_KEPT)(self._guess)

    def _guess(self, summary: bytes, expected: bytes) -> Floats:
        logits = self.things(Tokens.of_ret(np.frombuffer(summary, np.float32)[None]))[0]
        none = np.full(1, self.guess_none, np.float32)
        shares = softmax(np.concatenate([np.float32(self.guess_scale) * logits, none]))[:-1]
        if not expected:
            return shares
        raised = shares * np.frombuffer(expected, np.float32)
        return np.asarray(raised * (shares.sum() / np.maximum(raised.sum(), np.finfo(np.float32).tiny)))

    def guess(self, sketches: Tokens) -> Floats:
        """Computes how probably n sketches show what each word names, (n, w) float32; the rest to 1 is for no word."""
        shares = self.guess_things(sketches)
        if not len(self.drawn):
            return shares
        named, count = self.drawn >= 0, len(self.biases)
        rows = [np.bincount(self.drawn[named], of_things[named], count) for of_things in shares]
        return np.array(rows, np.float32).reshape(-1, count)

    def agreements(
        self,
        sketches: Tokens,
        photo_ret: NDArray[Any],
        named: Sequence[Collection[int]] = (),
        nearness: Floats | None = None,
    ) -> Floats:
        """Compares guesses for s sketches with p photos: P Q', (s, p) in [0, 1]; Q is softmax(NEARNESS cosines).

        Things that are guessed below LEAST_GUESSED do not count.

        named: the words of each sketch that somebody named, which then stand for its guesses. nearness: the photos'
        ``nearness``, if it is known.
        """
        (placed, places), shares = self._placed, self._placed_shares(sketches)
        for row, words in enumerate(named):
            if words:
                shares[row] = np.isin(self.drawn[placed] if len(self.drawn) else placed, [*words])
        guessed = np.flatnonzero(shares.any(axis=0))
        near = _exponentials(NEARNESS, unit(photo_ret) @ places[guessed].T)
        return np.asarray(shares[:, guessed] @ near.T / (self.nearness(photo_ret) if nearness is None else nearness))

    def _placed_shares(self, sketches: Tokens) -> Floats:
        """The guesses for things whose places are known, (s, k), those that count."""
        shares = self.guess_things(sketches)[:, self._placed[0]]
        shares[shares < LEAST_GUESSED] = 0
        return shares

    def nearness(self, photo_ret: NDArray[Any]) -> Floats:
        """Sums how near p photos are to the things, (p,): what ``agreements`` divide by."""
        sums = _exponentials(NEARNESS, unit(photo_ret) @ self._placed[1].T).sum(axis=1)
        return np.asarray(np.maximum(sums, np.finfo(np.float32).tiny))

    def likely_agreements(self, sketches: Tokens, photo_ret: NDArray[Any], nearness: Floats) -> tuple[Floats, Floats]:
        """Bounds ``agreements`` by the LIKELY likeliest things of each sketch: least and most, (s, p) each."""
        places, bounds = self._placed[1], list[tuple[Floats, Floats]]()
        for shares in self._placed_shares(sketches):
            *likely, next_one = np.argsort(-shares)[: LIKELY + 1]
            near = _exponentials(NEARNESS, cosines(places[likely], photo_ret)) / nearness
            least = shares[likely] @ near
            bounds.append((least, least + shares[next_one] * (1 - near.sum(axis=0))))
        least, most = (np.stack(part) for part in zip(*bounds, strict=True))
        return least, most

    def presence(self, ret: NDArray[Any], regions: Floats | None = None) -> Floats:
        """Computes how much p photos show each thing, by their [Ret] (p, d) and by their regions (p, g, r): (2, k).

        The first row is the mean over photos of softmax(NEARNESS cosines of places), the second one that of the largest
        such share in each photo's regions; 0 where the place of a thing is not known.
        """
        shown = np.zeros((2, len(self.places)), np.float32)
        of_both = ((unit(ret)[:, None], self.places), (regions, self.region_places))
        for row, (vectors, places) in zip(shown, of_both, strict=True):
            placed = np.flatnonzero(places.any(axis=1))
            if vectors is not None and len(placed):
                near = _exponentials(NEARNESS, vectors @ places[placed].T)
                row[placed] = (near / near.sum(axis=-1, keepdims=True)).max(axis=1).mean(axis=0)
        return shown

    @cached_property
    def _placed(self) -> tuple[Numbers, Floats]:
        placed = np.flatnonzero(self.places.any(axis=1))
        return placed, self.places[placed]


def expectations(presence: Floats) -> Floats:
    """Returns by what guesses for things of a drawing are multiplied, for a gallery with this ``presence``: (k,).

    By Bayes' rule, what a gallery shows more often is more likely to be drawn: it is the root of the product of both
    rows, each in units of its median, and a thing whose place is not known counts as the one in the middle.
    """
    factors = np.ones(presence.shape[1], np.float32)
    for row in presence:
        if (known := row > 0).any():
            factors[known] *= np.sqrt(row[known] / np.median(row[known]) + np.float32(LEAST_PRESENT))
    return factors


@dataclass(frozen=True)
class Projection:
    """Reduces regions and drawn things to compare them. axes: (r, d) float32, principal components."""

    axes: Floats

    @staticmethod
    def of(arrays: Arrays) -> Projection:
        return Projection(np.asarray(arrays["axes"], np.float32))

    @staticmethod
    def fit(local: Floats, count: int) -> Projection:
        """Fits the projection to ``count`` numbers on the local [Ret] of regions, (n, d)."""
        axes = np.linalg.eigh(local.T.astype(np.float64) @ local)[1]
        return Projection(np.ascontiguousarray(axes[:, ::-1][:, :count].T, np.float32))

    def arrays(self) -> dict[str, Any]:
        """Returns the arrays from which ``of`` makes a projection."""
        return dict(vars(self))

    def __call__(self, vectors: NDArray[Any]) -> Floats:
        """[Ret] of sketches, or local [Ret] of regions (..., d), any scale -> (..., r) float32 of length 1."""
        return unit(vectors @ self.axes.T)


def knowledge_of(
    config: NetworkConfig, arrays: Arrays
) -> tuple[Prior | None, Vocabulary | None, Projection | None, Parting | None]:
    """Takes prior, vocabulary, projection and parting from the arrays of a checkpoint; None for what it lacks."""
    prior = Prior.of(below("prior.", arrays)) if config.prototypes else None
    vocabulary = Vocabulary.of(below("vocabulary.", arrays), config.drawn, config.placed) if config.words else None
    projection = Projection.of(below("projection.", arrays)) if config.region_width else None
    parting = Parting.of(below("parting.", arrays))
    # A parting that was trained on other features cannot divide drawings: they stay whole until it is trained again.
    features = count_features(getattr(config, "encoder_width", 0))
    fits = parting.weights and parting.weights["first.weight"].shape[1] == features
    return prior, vocabulary, projection, parting if fits else None


def below(prefix: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """Returns the values whose names begin with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _exponentials(sharpness: float, cosines: Floats) -> Floats:
    """exp(sharpness cosines), in their place: a float32 holds it for any cosine, and memory takes most of the time."""
    cosines *= np.float32(sharpness)
    return np.exp(cosines, out=cosines)


def logsumexp(logits: Floats) -> Floats:
    """log(sum(exp(logits))) along the last dimension, (..., n) -> (...)."""
    most = logits.max(axis=-1)
    return np.asarray(most + np.log(np.exp(logits - most[..., None]).sum(axis=-1)))


def sigmoid(logits: ArrayLike) -> NDArray[Any]:
    """1 / (1 + exp(-logits)), without overflow; no number stays none."""
    with np.errstate(invalid="ignore"):
        shares: NDArray[Any] = np.exp(-np.logaddexp(0, -np.asarray(logits)))
    return shares


@dataclass(frozen=True)
class SelfAttention:
    """[Ret]'s attention in each block, (depth, heads, grid, grid), 0 if dropped; kept: (grid, grid) of selections."""

    blocks: Floats
    kept: tuple[NDArray[np.bool_], ...]

    @property
    def heads(self) -> Floats:
        """(heads, grid, grid): the last block, by head (Fig. 5)."""
        return np.asarray(self.blocks[-1])

    @property
    def layers(self) -> Floats:
        """(depth, grid, grid): each block, averaged over its heads; selection keeps the highest (eq. 7)."""
        return np.asarray(self.blocks.mean(axis=1))


@dataclass(frozen=True)
class Observed:
    """An encoded picture and its attention. everything: tokens of all patches; local: (n, d), their local [Ret]."""

    tokens: Tokens
    attention: SelfAttention
    everything: Tokens | None = None
    local: Floats | None = None


@dataclass(frozen=True)
class Matching:
    """How ``model.torch``'s ``BestMatchRelation`` sums matches: its scale, and each patch token's worth."""

    scale: float
    sketch_worth: Floats
    photo_worth: Floats


@dataclass(frozen=True)
class Aligned:
    """A sketch and a photo after cross-attention.

    sketch_to_photo, photo_to_sketch: (heads, 1 + n_s, 1 + n_p) and (heads, 1 + n_p, 1 + n_s), the attention of all
        tokens, [Ret] first.
    sketch, photo: (n_s, d) and (n_p, d), the patch tokens.
    photo_cells: (n_p,) int64, the cells of the photo's patches, of which cross-attention may select some.
    matching: None for the paper's relation network, which compares blocks of patches.
    lost: (n_s, n_p) float32, how much the relation logit of the paper's network falls if the cosine of two blocks is
        set to zero, at the two most similar patches of these blocks; 0 for other pairs. None if the relation network
        has a ``matching``, or blocks have no place, as in released checkpoints.
    """

    sketch_to_photo: Floats
    photo_to_sketch: Floats
    sketch: Floats
    photo: Floats
    photo_cells: Numbers
    matching: Matching | None = None
    lost: Floats | None = None


def lost_by_blocks(
    kernel: Floats, read: Callable[[Floats], Floats], patches: tuple[Floats, Floats], cells: tuple[Numbers, Numbers]
) -> Floats:
    """Computes ``Aligned.lost``, by setting each pair of m blocks to zero in turn.

    kernel: (m, m), rows sketch. read: makes logits (n,) of kernels (n, m, m). patches, cells: of sketch and photo.
    """
    size, blocks = len(kernel), math.isqrt(len(kernel))
    without = np.repeat(kernel.reshape(1, -1), kernel.size, axis=0)
    np.fill_diagonal(without, 0)
    lost = read(kernel[None])[0] - read(without.reshape(-1, size, size))
    of_sketch, of_photo = (at // (2 * blocks) // 2 * blocks + at % (2 * blocks) // 2 for at in cells)
    pairs = (of_sketch[:, None] * size + of_photo).ravel()
    cosines = (unit(patches[0]) @ unit(patches[1]).T).ravel()
    best = np.full(kernel.size, -np.inf, np.float32)
    np.maximum.at(best, pairs, cosines)
    return np.where(cosines == best[pairs], lost[pairs], 0).astype(np.float32).reshape(len(of_sketch), -1)


class Engine(ABC):
    """A network that is ready to compute, and what a checkpoint has beside it, or None. Threads may share it."""

    kind: str
    config: NetworkConfig
    calibration: Calibration
    prior: Prior | None
    vocabulary: Vocabulary | None
    projection: Projection | None
    parting: Parting | None
    device: str
    dtype: str

    @abstractmethod
    def encode(self, pictures: Floats, modality: Modality) -> Tokens:
        """Encodes prepared pictures (b, 3, H, W): float32 tokens. A picture's tokens depend on it alone, to 1e-4."""

    def encode_whole(self, variants: Floats) -> tuple[Tokens, Floats]:
        """Encodes variants of a sketch, (v, 3, H, W): tokens; the encoder's of all patches of the first, (2, n, e).

        The latter come from before the middle block, and from the end. Raises ModelError.
        """
        raise ModelError(f"{self.config.name} has no tokens of all patches; only two-sided networks have")

    def reduce_regions(self, tokens: Tokens) -> Tokens:
        """Reduces the regions of photos, local [Ret] (b, m, d), to (b, m, r); without a projection there are none."""
        local = tokens.regions
        return replace(tokens, regions=None if self.projection is None or local is None else self.projection(local))

    @abstractmethod
    def relate(self, sketch: Tokens, photos: Tokens) -> Floats:
        """Computes relation logits of a sketch and p photos, (p,), without prior and guesses. Raises ModelError."""

    @abstractmethod
    def observe(self, pictures: Floats, modality: Modality) -> Observed:
        """Encodes the variants (v, 3, H, W) of one picture, and records its attention; see ``average_variants``."""

    @abstractmethod
    def align(self, sketch: Tokens, photo: Tokens) -> Aligned | None:
        """Aligns a sketch and a photo, a batch of one each; None for a network with one vector for each picture."""


def grid_maps(cells: NDArray[Any], values: NDArray[Any], grid: int) -> NDArray[Any]:
    """Puts values (..., n) of cells (n,) on a grid: (..., grid, grid); other cells are zero."""
    maps = np.zeros((*values.shape[:-1], grid * grid), values.dtype)
    maps[..., cells] = values
    return maps.reshape(*values.shape[:-1], grid, grid)


# The flags of Linux by which ONNX Runtime chooses how it multiplies whole numbers, the best first.
_PROCESSORS = {"avx512_vnni": "VNNI", "avx_vnni": "VNNI", "avx512f": "AVX512", "avx2": "AVX2"}


def processor() -> str:
    """Returns the kind of processor: "VNNI", "AVX512", "AVX2", or "other", also where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return "other"
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return next((kind for flag, kind in _PROCESSORS.items() if flag in flags), "other")


def threads() -> int:
    """Returns how many threads may compute: OMP_NUM_THREADS if it is set, else the cores of this machine."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    return int(named) if named.isdigit() and int(named) else os.cpu_count() or 1


def set_threads(count: int | None) -> None:
    """Sets the threads of this process and its children, before a checkpoint is loaded; None changes nothing."""
    if count is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(count)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)
