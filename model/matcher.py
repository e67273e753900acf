"""Offers all functions of a checkpoint: prepare, encode, score, explain, by numpy and an engine."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property

import numpy as np
from cachetools import LRUCache
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from sketch_search.model.answers import Guess
from sketch_search.model.engine import (
    Engine,
    Floats,
    Method,
    Modality,
    Numbers,
    Observed,
    Tokens,
    TwoSidedConfig,
    Vocabulary,
    as_floats,
    average_variants,
    cosines,
    sigmoid,
    sketch_variants,
    unit,
)
from sketch_search.model.engine.detector import KINDS
from sketch_search.model.engine.graphs import VERSION
from sketch_search.model.engine.parting import SIDE
from sketch_search.model.engine.surface import processor
from sketch_search.model.errors import ModelError
from sketch_search.model.explanation import PairExplanation, compare
from sketch_search.model.images import Drawing, Preprocessing, Source, average_cells, check_modality, colours_of_cells
from sketch_search.model.limits import MAX_VARIANTS
from sketch_search.model.ranking import above_first, diffuse, likenesses, weigh
from sketch_search.model.things import AGREEING, GUESSED, LEAST_AGREEING, WHOLE, Thing
from sketch_search.model.words import WordBook

# Pairs scored at once: enough to keep a CPU busy, few enough for its cache. A GPU needs more.
CHUNK, GPU_CHUNK = 32, 256
# How many sketches' tokens are kept, the latest ones, some 240 kB each: what a person does next, and the variants after
# the first, search by the same drawing.
KEPT = 64
# The most words guessed for a sketch, and the least probability of a guess: no guess is better than a wrong one.
MAX_GUESSES, LEAST_PROBABLE = 3, 0.3
# The least probability of a word offered with a question mark, if there is no guess.
LEAST_POSSIBLE = 0.03
# Of words for one thing, one that has this share of their probability is called by its own name.
FAR_LIKELIER = 2 / 3


class Matcher:
    """A network with its preprocessing, its methods and its precision. Threads may share it.

    checkpoint_sha256: hex digest of its file. preprocessing_fingerprint: hex digest that changes if ``prepare`` would
    return other pixels of photos. device, dtype: "cpu" or "cuda", and the precision. variants: as for ``load``.
    methods, best_method: some of "rn", "ret" and "fused", and the best on validation classes. chunk: pairs scored at
    once. kept: tokens of the latest sketches, and those of all patches if asked for, by digest and variant.
    words: of its vocabulary, in its order.
    """

    def __init__(self, engine: Engine, checkpoint_sha256: str, *, variants: int | None = None) -> None:
        self.engine = engine
        self.config, self.calibration = config, calibration = engine.config, engine.calibration
        self.methods, self.best_method = calibration.methods, calibration.best_method
        self.checkpoint_sha256 = checkpoint_sha256
        self.device, self.dtype = engine.device, engine.dtype
        self.chunk = GPU_CHUNK if engine.device == "cuda" else CHUNK
        self.variants = _check_variants(variants) or calibration.variants
        self.preprocessing = Preprocessing(
            config.image_size, config.mean, config.std, config.released_preprocessing, config.released_padding
        )
        self.preprocessing_fingerprint = self.preprocessing.fingerprint("photo")
        self.words = tuple(names[0] for names in config.words)
        self.kept: LRUCache[tuple[bytes, int], tuple[Tokens, Floats | None]] = LRUCache(KEPT)
        self._keeping = threading.Lock()

    @cached_property
    def book(self) -> WordBook:
        """Looks up the words of the vocabulary. It takes 30 ms to make."""
        return WordBook(self.config.words)

    @property
    def photo_sha256(self) -> str:
        """Hex digest of everything that determines photos' tokens. Checkpoints that share it share their indexes."""
        config = self.config
        if not isinstance(config, TwoSidedConfig):
            return self.checkpoint_sha256
        digest = hashlib.sha256(f"{config.photo_side} {config.token_count('photo')}".encode())
        if self.engine.projection is not None:
            digest.update(self.engine.projection.axes.tobytes())
        return digest.hexdigest()

    @property
    def arithmetic(self) -> str:
        """Says how it computes photos: by the version of its graphs and the kind of processor, or by PyTorch."""
        if self.dtype == "int8":
            return f"int8 of version {VERSION} on {processor()}"
        return f"PyTorch's {self.dtype} on {self.device}"

    def open(self, source: Source, modality: Modality) -> Image.Image:
        """Opens a picture (bytes, path or stream) for ``prepare``. Raises as ``open_image`` does."""
        return self.preprocessing.open(source, modality)

    def prepare(self, image: Image.Image, modality: Modality) -> Floats:
        """Makes a picture's network input, (3, H, W) float32, as in training. Raises BlankSketch without ink."""
        return self.preprocessing.prepare(image, modality)

    def encode(self, pictures: ArrayLike, modality: Modality, variants: int | None = None) -> Tokens:
        """Encodes pictures (b, 3, H, W) from ``prepare`` -> float32 tokens, which do not depend on the others, to 1e-4.

        pictures: an array, or a tensor of PyTorch. variants: of each sketch; None for ``variants``. Raises ModelError
        for another shape, modality or type.
        """
        pictures = _check_pictures(pictures, modality)
        size = (3, self.config.image_size, self.config.image_size)
        if pictures.ndim != 4 or pictures.shape[1:] != size or not len(pictures):
            raise ModelError(f"images must be (b, {', '.join(map(str, size))}), not {pictures.shape}")
        if modality == "photo":
            tokens, side = self.engine.encode(pictures, modality), math.isqrt(self.config.regions)
            if not side:
                return tokens
            return replace(tokens, colours=self._colours(pictures, side))
        count = _check_variants(variants) or self.variants
        return Tokens.cat([average_variants(self._encode_variants(picture, count)) for picture in pictures])

    def _encode_variants(self, picture: Floats, count: int) -> Tokens:
        """Encodes those of the first variants of a sketch (3, H, W) whose tokens are not kept."""
        digest = _digest(picture)
        keys = [(digest, number) for number in range(count)]
        with self._keeping:
            known = {key: self.kept[key][0] for key in keys if key in self.kept}
        if new := [key for key in keys if key not in known]:
            encoded = self.engine.encode(sketch_variants(picture, count)[[number for _, number in new]], "sketch")
            known |= {key: encoded[row : row + 1] for row, key in enumerate(new)}
            with self._keeping:
                self.kept.update({key: (known[key], None) for key in new})
        return Tokens.cat([known[key] for key in keys])

    def _encode_whole(self, picture: Floats) -> tuple[Tokens, Floats]:
        """Encodes a sketch (3, H, W) unless it is kept: tokens, and the encoder's of all patches, (2, n, e)."""
        with self._keeping:
            tokens, patches = self.kept.get(key := (_digest(picture), 0), (None, None))
        if tokens is None or patches is None:
            # A GPU encodes all variants, which the finished drawing needs next, in the time of one.
            variants = sketch_variants(picture, self.variants if self.device == "cuda" else 1)
            tokens, patches = self.engine.encode_whole(variants)
            with self._keeping:
                self.kept.update({(key[0], row): (tokens[row : row + 1], None) for row in range(len(tokens))})
                self.kept[key] = tokens[:1], patches
        return tokens[:1], patches

    def divide(self, drawing: Drawing) -> Drawing:
        """Divides a drawing into things by ``Parting``, unless it has several already, or the checkpoint has none."""
        if self.engine.parting is None or drawing.sheet is None or len(drawing.things) > 1:
            return drawing
        return drawing.divide(*self.things_on_square(drawing))

    def things_on_square(self, drawing: Drawing) -> tuple[Numbers, Numbers, tuple[float, Numbers] | None]:
        """Numbers the things on a drawing's square, as ``Parting.divide``. Raises ModelError."""
        if self.engine.parting is None:
            raise ModelError(
                f"this checkpoint ({self.config.name}) cannot divide drawings; teach it by python -m training parting"
            )
        tokens, patches = self._encode_whole(self.preprocessing.normalise(drawing.whole))
        guesses = self.guesses(tokens)
        sure = guesses[0].probability if guesses else 0.0
        told = np.array([-1 if stroke.thing is None else stroke.thing for stroke in drawing.strokes], np.int64)
        return self.engine.parting.divide(patches, drawing.darkness(SIDE), drawing.stroke_map(SIDE), told, sure)

    def _colours(self, photos: Floats, side: int) -> Floats:
        return colours_of_cells(self.preprocessing.shares(average_cells(photos, side)), side)

    def observe(self, picture: ArrayLike, modality: Modality) -> Observed:
        """Encodes one picture (3, H, W) from ``prepare``, an array or a tensor, and records its attention."""
        picture = _check_pictures(picture, modality)
        alone = picture[None] if modality == "photo" else sketch_variants(picture, self.variants)
        return self.engine.observe(alone, modality)

    def scores(
        self,
        sketches: Tokens,
        photos: Tokens,
        method: Method | None = None,
        priors: Floats | None = None,
        nearness: Floats | None = None,
    ) -> Floats:
        """Scores every sketch against every photo: (s, p) float32, higher is better.

        method: "rn", the relation score in (0, 1); "ret", minus the distance of [Ret]; "fused", a weighted sum of both;
        None for the best. priors, nearness: of the photos, if they are known; only distances use them.
        """
        method = method or self.best_method
        return self.scores_by(sketches, photos, (method,), priors, nearness)[method]

    def scores_by(
        self,
        sketches: Tokens,
        photos: Tokens,
        methods: Sequence[Method],
        priors: Floats | None = None,
        nearness: Floats | None = None,
    ) -> dict[Method, Floats]:
        """Scores by several methods, at the cost of the most expensive one. Raises ModelError for a method it lacks."""
        for method in methods:
            if method not in self.methods:
                able = ", ".join(self.methods)
                raise ModelError(f"this checkpoint ({self.config.name}) cannot score by {method!r}, only by {able}")
        logits = cache(lambda: self.relation_logits(sketches, photos))
        distances = cache(lambda: self.ret_distances(sketches, photos, priors, nearness))
        weight = np.float32(self.calibration.fusion or 0)
        ways: dict[Method, Callable[[], Floats]] = {
            "rn": lambda: sigmoid(logits()),
            "ret": lambda: -distances(),
            "fused": lambda: logits() - weight * distances(),
        }
        return {method: ways[method]() for method in methods}

    def diffuse(
        self,
        scores: Floats,
        ret: NDArray[np.floating],
        method: Method,
        threshold: float | None = None,
        weights: Floats | None = None,
    ) -> Floats:
        """Shares scores (s, p) among photos that look alike, by ``model.ranking.diffuse``. Raises ModelError.

        Diffusion makes photos that look alike equal, so by "rn" the score before says which of the best was drawn.

        threshold: the cosine from which two photos share their scores; None for ``diffusion_threshold``. weights: as
        there.
        """
        threshold = self.diffusion_threshold if threshold is None else threshold
        after = diffuse(scores, ret, threshold, method, weights)
        weight = self.calibration.weights.get("pair", {}).get("always", 0.0)
        return weigh(after, weight * above_first(scores), method) if method == "rn" else after

    @property
    def diffusion_threshold(self) -> float:
        """The cosine from which two photos share their scores. Raises ModelError if none was chosen."""
        if self.calibration.diffusion is None:
            raise ModelError(f"this checkpoint ({self.config.name}) has no threshold for diffusion; train it again")
        return self.calibration.diffusion

    def ret_distances(
        self, sketches: Tokens, photos: Tokens, priors: Floats | None = None, nearness: Floats | None = None
    ) -> Floats:
        """Computes distances of [Ret]: (s, p) float32 in [0, sqrt(4 + 2 ret_gain)].

        They are Euclidean distances of the L2-normalised tokens: sqrt(2 - 2 cosine). A prior lowers the cosine by
        ret_weight * prior; if guesses lead, they lower it by ret_gain * (1 - agreement).
        """
        squares, vocabulary, gain = self._squares(sketches, photos, priors), self.engine.vocabulary, self._ret_gain
        if vocabulary is not None and gain:
            squares += np.float32(2 * gain) * (1 - vocabulary.agreements(sketches, photos.ret, nearness=nearness))
        return np.asarray(np.sqrt(np.clip(squares, 0, np.float32(4 + 2 * gain))))

    def may_be_nearest(
        self, sketches: Tokens, photos: Tokens, count: int, priors: Floats | None, nearness: Floats | None
    ) -> Numbers:
        """Finds the photos that may be among the ``count`` nearest to a sketch by [Ret], or by the mean of several.

        priors, nearness: of the photos. Returns (m,) indices, ascending, with few others.
        """
        if nearness is None or count >= len(photos):
            return np.arange(len(photos))
        squares, gain = self._squares(sketches, photos, priors), np.float32(2 * self._ret_gain)
        bounds = self._vocabulary().likely_agreements(sketches, photos.ret, nearness)
        furthest, nearest = (np.sqrt(np.maximum(squares + gain * (1 - agreement), 0)) for agreement in bounds)
        furthest, nearest = (np.concatenate([ways, ways.mean(axis=0, keepdims=True)]) for ways in (furthest, nearest))
        least = np.partition(furthest, count - 1, axis=1)[:, count - 1, None]
        return np.flatnonzero((nearest <= least + np.float32(1e-5)).any(axis=0))

    @property
    def _ret_gain(self) -> float:
        return 0.0 if self.engine.vocabulary is None else self.engine.vocabulary.ret_gain

    def _squares(self, sketches: Tokens, photos: Tokens, priors: Floats | None) -> Floats:
        squares: Floats = 2 - 2 * cosines(unit(sketches.ret), photos.ret)
        if (prior := self.engine.prior) is not None:
            squares += np.float32(2 * prior.ret_weight) * (prior(photos.ret) if priors is None else priors)
        return squares

    def nearness(self, photos: Tokens) -> Floats | None:
        """Computes what distances need of photos, (p,) float32, to keep; None if guesses do not lead."""
        return self._vocabulary().nearness(photos.ret) if self._ret_gain else None

    def priors(self, photos: Tokens) -> Floats | None:
        """Computes the priors of photos, (p,) float32, to keep for further comparisons; None without a prior."""
        return None if self.engine.prior is None else self.engine.prior(photos.ret)

    def word_scores(self, photos: Tokens, words: Sequence[int], levels: Floats | None = None) -> Floats:
        """Scores how much each photo shows the thing of each word (``model.engine.Vocabulary``): (w, p) float32.

        Only scores by one word can be compared. words: indices in ``words``. levels: the photos' ``word_levels``, if
        they are known. Raises ModelError without a vocabulary.
        """
        vocabulary = self._vocabulary()
        known = vocabulary.levels(photos.ret) if levels is None else levels
        return vocabulary.logits(photos.ret, words).T - known

    def word_direction(self, words: Sequence[int]) -> Floats:
        """Returns the mean direction (d,) float32 of words among [Ret]. Raises ModelError without a vocabulary."""
        return np.asarray(self._vocabulary().directions[list(words)].mean(axis=0))

    def word_levels(self, photos: Tokens) -> Floats | None:
        """Computes the levels subtracted from scores by a word, (p,) float32, to keep; None without a vocabulary."""
        return None if self.engine.vocabulary is None else self.engine.vocabulary.levels(photos.ret)

    def kinship(self, liked: Floats, ret: NDArray[np.floating], mean: Floats) -> Floats:
        """Computes how much photos (p, d) are of the kind of liked ones (l, d): (p,) float32, at most 1.

        It is the mean over the liked ones of ``model.ranking.likenesses``, averaged with how alike words describe both,
        if the checkpoint has words.
        """
        kinship: Floats = likenesses(liked, ret, mean).mean(axis=1)
        if self.engine.vocabulary is not None:
            kinship = (kinship + self.engine.vocabulary.alike(liked, ret).mean(axis=1)) / np.float32(2)
        return kinship

    def guesses(self, sketch: Tokens, least: float = LEAST_PROBABLE, most: int = MAX_GUESSES) -> tuple[Guess, ...]:
        """Guesses at most ``most`` words for a sketch, a batch of one, of at least this probability, best first.

        Words for one thing to a person are guessed together (``WordBook.same``).
        """
        if self.engine.vocabulary is None:
            return ()
        probabilities = self.engine.vocabulary.guess(sketch)[0].copy()
        for alike in map(list, self.book.same):
            total, best = probabilities[alike].sum(), max(alike, key=lambda word: probabilities[word])
            name = best if probabilities[best] >= FAR_LIKELIER * total else alike[0]
            probabilities[alike] = 0
            probabilities[name] = total
        best = np.argsort(-probabilities, kind="stable")[:most].tolist()
        guesses = (Guess(self.words[number], float(probabilities[number])) for number in best)
        return tuple(guess for guess in guesses if guess.probability >= least)

    def drawing_direction(self, things: Sequence[Thing]) -> Floats | None:
        """Returns the direction of the whole drawing of several things, (d,), as long as it counts; None if unknown.

        Its length is WHOLE (1 - p)^2, with p the mean probability of the best guess of each thing, named or not.
        """
        if not things or things[0].drawing_ret is None:
            return None
        return unit(things[0].drawing_ret) * np.float32(WHOLE * (1 - self.sureness(things).mean()) ** 2)

    def sureness(self, things: Sequence[Thing]) -> Floats:
        """Returns how probable the best guess of each of t things is, (t,), named or not; 0 without a vocabulary."""
        if self.engine.vocabulary is None:
            return np.zeros(len(things), np.float32)
        return np.asarray(self.engine.vocabulary.guess(Tokens.cat([thing.tokens for thing in things])).max(axis=1))

    def thing_directions(self, things: Sequence[Thing]) -> Floats:
        """Returns what regions that show each of t things are like, (t, r) of length 1. Raises ModelError.

        It is the direction of a thing's [Ret], plus GUESSED times where regions that show its words lie, or, if nobody
        named it, the mean of where regions that show the guessed things lie, or their photos if regions were not
        looked at.
        """
        if self.engine.projection is None:
            raise ModelError(
                f"this checkpoint ({self.config.name}) has no regions; add them with python -m training regions"
            )
        tokens, vocabulary = Tokens.cat([thing.tokens for thing in things]), self.engine.vocabulary
        directions = self.engine.projection(tokens.ret)
        if vocabulary is not None:
            places = vocabulary.region_places
            places = places if len(places) else self.engine.projection(vocabulary.places)
            towards = vocabulary.guess_things(tokens) @ places
            names = vocabulary.drawn if len(vocabulary.drawn) else np.arange(len(places))
            for row, thing in enumerate(things):
                if thing.words:
                    drawn = np.isin(names, thing.words) & places.any(axis=1)
                    # Of things that nobody drew or saw, only the direction of the word is known.
                    shown = (
                        places[drawn] if drawn.any() else self.engine.projection(vocabulary.directions[[*thing.words]])
                    )
                    towards[row] = unit(unit(shown).mean(axis=0))
            directions += np.float32(GUESSED) * towards
        return unit(directions)

    def thing_kinds(self, things: Sequence[Thing]) -> Floats:
        """Returns how probably each of t things is of each kind of the detector, (t, k): by its guesses or its words.

        Words say that it is of a kind if most of them mean it.
        """
        if self.engine.vocabulary is None:
            return np.zeros((len(things), len(KINDS)), np.float32)
        kinds = self.words_of_kinds
        guesses = self.engine.vocabulary.guess(Tokens.cat([thing.tokens for thing in things]))
        probable = guesses @ kinds.T
        for row, thing in enumerate(things):
            if thing.words:
                probable[row] = kinds[:, [*thing.words]].mean(axis=1) > 0.5
        return np.asarray(np.minimum(probable, np.float32(1)))

    @cached_property
    def words_of_kinds(self) -> Floats:
        """Which words mean each kind of the detector, (k, w) float32, 1 or 0."""
        kinds = np.zeros((len(KINDS), len(self.words)), np.float32)
        for row, words in zip(kinds, self.book.of_kinds(KINDS), strict=True):
            row[[*words]] = 1
        return kinds

    def shown_things(self, things: Sequence[Thing], photo_ret: NDArray[np.floating]) -> Floats:
        """Returns how much p photos, [Ret] (p, d), show t things as a whole: (p,), to add to scores of things.

        It is AGREEING mean_t log(a + LEAST_AGREEING), with a the agreement of a thing's guesses, or its words.
        """
        if self.engine.vocabulary is None:
            return np.zeros(len(photo_ret), np.float32)
        tokens, named = Tokens.cat([thing.tokens for thing in things]), [thing.words for thing in things]
        agreements = self.engine.vocabulary.agreements(tokens, photo_ret, named)
        return np.asarray(np.float32(AGREEING) * np.log(agreements + np.float32(LEAST_AGREEING)).mean(axis=0))

    def relation_logits(self, sketches: Tokens, photos: Tokens) -> Floats:
        """Computes relation scores before the sigmoid, (s, p) float32. Raises ModelError for one vector a picture."""
        out = self._relate(sketches, photos)
        prior, vocabulary = self.engine.prior, self.engine.vocabulary
        if prior is not None and len(photos):
            out -= np.float32(prior.relation_weight) * prior(photos.ret)
        if vocabulary is not None and vocabulary.relation_gain and len(photos):
            out += np.float32(vocabulary.relation_gain) * vocabulary.agreements(sketches, photos.ret)
        return out

    def plain_scores(self, sketches: Tokens, photos: Tokens) -> Floats:
        """Computes relation scores without prior and guesses, (s, p), 0 to 1. Raises ModelError for one vector."""
        return sigmoid(self._relate(sketches, photos))

    def _relate(self, sketches: Tokens, photos: Tokens) -> Floats:
        out = np.empty((len(sketches), len(photos)), np.float32)
        # The outer loop is over photos, so that a chunk of them stays in the cache for all sketches.
        for start in range(0, len(photos), self.chunk):
            chunk = photos[start : start + self.chunk]
            for row in range(len(sketches)):
                out[row, start : start + len(chunk)] = self.engine.relate(sketches[row : row + 1], chunk)
        return out

    def explain(self, sketch: Image.Image, photo: Image.Image) -> PairExplanation:
        """Explains why ``photo`` matches ``sketch``. Raises BlankSketch."""
        drawn, seen = self.prepare(sketch, "sketch"), self.prepare(photo, "photo")
        return self.compare(self.observe(drawn, "sketch"), self.observe(seen, "photo"))

    def compare(self, sketch: Observed, photo: Observed) -> PairExplanation:
        """Explains a pair of observed pictures, with the scores of a search."""
        score = None
        if self.calibration.relation_trained:
            score = float(sigmoid(self.relation_logits(sketch.tokens, photo.tokens))[0, 0])
        return compare(self.engine, sketch, photo, float(self.ret_distances(sketch.tokens, photo.tokens)[0, 0]), score)

    def _vocabulary(self) -> Vocabulary:
        if self.engine.vocabulary is None:
            raise ModelError(
                f"this checkpoint ({self.config.name}) has no vocabulary; add one with python -m training words"
            )
        return self.engine.vocabulary


def _digest(picture: Floats) -> bytes:
    return hashlib.blake2b(picture.tobytes(), digest_size=16).digest()


def _check_pictures(pictures: ArrayLike, modality: Modality) -> Floats:
    """Returns pictures as float32. Raises ModelError for whole numbers, which ``prepare`` never gives."""
    check_modality(modality)
    prepared = as_floats(pictures)
    dtype = str(getattr(pictures, "dtype", ""))
    if "int" in dtype:
        raise ModelError(f"images are float32 as from prepare(), not raw pixels in {dtype}")
    return prepared


def _check_variants(variants: int | None) -> int | None:
    if variants is not None and not 1 <= variants <= MAX_VARIANTS:
        raise ModelError(f"a sketch has 1 to {MAX_VARIANTS} variants, not {variants}")
    return variants
