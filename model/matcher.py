"""Offers all that a checkpoint can do: prepare, encode, score, explain."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from model.checkpoint import default_checkpoint, file_sha256, load_network
from model.errors import ModelError
from model.explanation import Explanation, explain
from model.images import Preprocessing, Source
from model.network import (
    MOST_VARIANTS,
    Calibration,
    Method,
    Modality,
    ModelConfig,
    NetworkConfig,
    RetNetwork,
    Side,
    Tokens,
    Vocabulary,
    as_zse,
    averaged_variants,
    fastest_dtype,
    sketch_variants,
)
from model.ranking import ScoredBy, diffused, estimated
from model.words import WordBook

# Pairs scored at once on a CPU: enough to keep two cores busy, few enough that padding the last chunk wastes little.
# The size is fixed, not tuned on each machine, because other sizes are hardly faster and change the last bit of scores.
CHUNK = 32
# A GPU needs more pairs at once to be busy.
GPU_CHUNK = 256
# Photos whose priors, word scores, or agreements with guesses are computed at once. A search compares some 4,000 photos
# by vector.
RET_CHUNK = 512
# Images encoded at once: a query is one sketch, of which ``Matcher._encoded`` makes the variants; photos come many at a
# time.
ENCODE_CHUNK = {"sketch": 1, "photo": 16}
# The most words that are guessed for a sketch, and the least probability of a guess, because no guess is better than a
# wrong guess. With a calibration on sketches of trained things alone, 0.70 of other sketches of these things had a
# right guess, with 0.94 guesses on average. Sketches of validation classes, for which no guess could be right, had 0.62
# guesses on average.
MOST_GUESSES = 3
LEAST_PROBABLE = 0.3


@dataclass(frozen=True)
class Guess:
    """A word that may name what a sketch shows. probability: in 0..1."""

    word: str
    probability: float


def load(
    path_or_name: str | Path = "default",
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    *,
    chunk: int | None = None,
    variants: int | None = None,
) -> Matcher:
    """Loads a checkpoint, ready to use.

    Args:
        path_or_name: a safetensors file, or "default" for the checkpoint that comes with the package.
        device: where to compute; "auto" for a GPU if there is one, else the CPU.
        dtype: precision of cross-attention and kernel; None takes the fastest one on this machine whose relation scores
            stay within 1e-2 of float32's. The encoder works in float32.
        chunk: pairs scored at once; None for CHUNK on a CPU and GPU_CHUNK on a GPU. While it stays the same,
            scores do not depend on which pairs are scored together.
        variants: how many variants of a sketch are encoded, from 1 to MOST_VARIANTS; None for the number in the
            checkpoint's calibration. See ``model.network.tokens``.

    Raises ModelError, saying what to do: the file is missing, damaged or of another kind, or the device cannot be used.
    """
    path = default_checkpoint(None if str(path_or_name) == "default" else path_or_name)
    target = find_device(device)
    network = load_network(path).to(target)
    network.set_precision(dtype or fastest_dtype(network, target))
    return Matcher(network, file_sha256(path), chunk=chunk, variants=variants)


def find_device(name: str | torch.device) -> torch.device:
    """Returns the device of this name; "auto" is a GPU if there is one, else the CPU. Raises ModelError if it fails."""
    try:
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(automatic if name == "auto" else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {name!r} cannot be used here ({error}); use cpu") from error
    return device


class Matcher:
    """A network with its preprocessing, its methods and its precision.

    Attributes:
        config: architecture and preprocessing of the network.
        calibration: the choices for its weights: methods, fusion weight, diffusion threshold.
        checkpoint_sha256: hex digest of the file it came from.
        preprocessing_fingerprint: hex digest that changes when ``prepare`` would give other pixels.
        device, dtype, chunk, variants: as for ``load``.
        book: looks up the words of its vocabulary; it is empty for a checkpoint without a vocabulary.
    """

    def __init__(
        self, network: RetNetwork, checkpoint_sha256: str, *, chunk: int | None = None, variants: int | None = None
    ) -> None:
        if chunk is not None and chunk < 1:
            raise ModelError("chunk must be at least 1")
        if variants is not None and not 1 <= variants <= MOST_VARIANTS:
            raise ModelError(f"a sketch has 1 to {MOST_VARIANTS} variants, not {variants}")
        self.network = network.eval()
        self.config: NetworkConfig = network.config
        self.calibration: Calibration = network.calibration
        self.checkpoint_sha256 = checkpoint_sha256
        self.device, self.dtype = next(network.parameters()).device, network.precision
        self.chunk = chunk or (GPU_CHUNK if self.device.type == "cuda" else CHUNK)
        self.variants = variants or network.calibration.variants
        self.preprocessing = Preprocessing(
            self.config.image_size,
            self.config.mean,
            self.config.std,
            self.config.released_preprocessing,
            self.config.released_padding,
        )
        self.preprocessing_fingerprint = self.preprocessing.fingerprint()
        self.book = WordBook(self.config.words)

    @property
    def photo_sha256(self) -> str:
        """Hex digest of all that decides the tokens of photos. Checkpoints that share it share their indexes.

        For a two-sided network it covers the photo side and the number of kept tokens; for other networks the whole
        checkpoint.
        """
        config = self.config
        if not isinstance(config, ModelConfig) or not config.photo_side:
            return self.checkpoint_sha256
        return hashlib.sha256(f"{config.photo_side} {config.token_count('photo')}".encode()).hexdigest()

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods by which this checkpoint can score: some of "rn", "ret" and "fused"."""
        return self.calibration.methods

    @property
    def words(self) -> tuple[str, ...]:
        """The words of this checkpoint's vocabulary, in its order; empty if it has no vocabulary."""
        return self.book.words

    @property
    def best_method(self) -> Method:
        """The method that was best on the validation classes, which "auto" stands for."""
        return self.calibration.best_method

    def token_count(self, modality: Modality) -> int:
        """Returns how many tokens an encoded image has, [Ret] included."""
        return self.config.token_count(modality)

    def open(self, source: Source, modality: Modality) -> Image.Image:
        """Open a picture (bytes, path or stream) in the form that ``prepare`` expects.

        A large JPEG photo is decoded at a fraction of its size, which is much faster; every other picture, and every
        picture for a released network, is decoded whole. Raises as ``model.images.open_image`` does.
        """
        return self.preprocessing.open(source, modality)

    def prepare(self, image: Image.Image, modality: Modality) -> torch.Tensor:
        """Makes a picture's network input, (3, H, W) float32: cropped, resized and normalised as in training.

        Raises BlankSketch for a sketch without ink.
        """
        return self.preprocessing.prepare(image, modality)

    @torch.inference_mode()
    def encode(self, images: torch.Tensor, modality: Modality) -> Tokens:
        """Encodes images (b, 3, H, W) from ``prepare`` -> float32 tokens on this matcher's device.

        The tokens of an image do not depend on the images encoded with it. Raises ModelError for another shape.
        """
        size = (3, self.config.image_size, self.config.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != size or not len(images):
            raise ModelError(f"images must be (b, {', '.join(map(str, size))}), not {tuple(images.shape)}")
        images = images.to(self.device)
        parts = [
            self._encoded(images[index], modality)[:real]
            for index, real in fixed_chunks(len(images), ENCODE_CHUNK[modality], self.device)
        ]
        return Tokens.cat(parts)

    def variants_of(self, image: torch.Tensor, modality: Modality) -> torch.Tensor:
        """Makes the variants of a picture (3, H, W) from ``prepare``: (v, 3, H, W) on this matcher's device.

        A sketch has ``variants`` variants, and a photo has itself alone.
        """
        alone = image[None].to(self.device)
        return alone if modality == "photo" else sketch_variants(alone, self.variants)

    @torch.inference_mode()
    def scores(
        self,
        sketches: Tokens,
        photos: Tokens,
        method: Method | None = None,
        priors: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scores every sketch against every photo: (s, p) float32 on the CPU, higher is better.

        Args:
            sketches, photos: tokens of any floating type, on any device.
            method: "rn", the relation score in (0, 1); "ret", minus the distance of [Ret]; "fused", a weighted sum of
                both; None takes the checkpoint's best method.
            priors: the photos' ``priors``, if they are known already; only distances use them.
        """
        method = method or self.best_method
        return self.scores_by(sketches, photos, (method,), priors)[method]

    @torch.inference_mode()
    def scores_by(
        self,
        sketches: Tokens,
        photos: Tokens,
        methods: Sequence[Method],
        priors: torch.Tensor | None = None,
    ) -> dict[Method, torch.Tensor]:
        """Scores by several methods, at the cost of the most expensive one. Raises ModelError for a method it lacks."""
        for method in methods:
            if method not in self.methods:
                able = ", ".join(self.methods)
                raise ModelError(f"this checkpoint ({self.config.name}) cannot score by {method!r}, only by {able}")
        scores: dict[Method, torch.Tensor] = {}
        logits = self.relation_logits(sketches, photos) if {"rn", "fused"} & set(methods) else None
        distances = self.ret_distances(sketches, photos, priors) if {"ret", "fused"} & set(methods) else None
        if distances is not None and "ret" in methods:
            scores["ret"] = -distances
        if logits is not None and "rn" in methods:
            # In float32 the last bit of a sigmoid depends on the logit's place in the matrix. Rounded float64 does not.
            scores["rn"] = logits.double().sigmoid().float()
        fusion = self.calibration.fusion
        if logits is not None and distances is not None and fusion is not None and "fused" in methods:
            scores["fused"] = logits - fusion * distances
        return scores

    @torch.inference_mode()
    def diffuse(self, scores: torch.Tensor, ret: torch.Tensor, method: ScoredBy | None = None) -> torch.Tensor:
        """Lets photos that look alike share their scores (s, p), by ``model.ranking.diffused``.

        method: None for the checkpoint's best. Raises ModelError for a checkpoint without a threshold for diffusion.
        """
        return diffused(scores, ret, self._threshold(), method or self.best_method)

    @torch.inference_mode()
    def estimate(
        self,
        scores: torch.Tensor,
        known: torch.Tensor,
        distances: torch.Tensor,
        ret: torch.Tensor,
        method: ScoredBy | None = None,
    ) -> torch.Tensor:
        """Estimates the scores of photos that were not scored, by ``model.ranking.estimated``: (p,) on the CPU.

        method: None for the checkpoint's best. Raises ModelError for a checkpoint without a threshold for diffusion.
        """
        threshold = self._threshold()
        return estimated(scores.cpu(), known.cpu(), distances.cpu(), ret.cpu(), threshold, method or self.best_method)

    @torch.inference_mode()
    def ret_distances(self, sketches: Tokens, photos: Tokens, priors: torch.Tensor | None = None) -> torch.Tensor:
        """Computes distances of [Ret] by ``RetNetwork.ret_distances``: (s, p) float32 on the CPU.

        priors: the photos' ``priors``, if they are known already.
        """
        s, p = (tokens.without_patches.to(self.device, torch.float32) for tokens in (sketches, photos))
        known = self.priors(photos) if priors is None else priors
        agreements = None
        if self.network.ret_gain:
            guessed = self.network.guessed(s)
            agreements = self._in_chunks(photos, lambda ret: self.network.agreements(guessed, ret).T).T
        return self.network.ret_distances(s, p, known, agreements).cpu()

    @torch.inference_mode()
    def priors(self, photos: Tokens) -> torch.Tensor | None:
        """Computes the priors of photos, (p,) float32 on this matcher's device; None for a checkpoint without a prior.

        Keep the result if the same photos are compared by [Ret] again and again.
        """
        return None if self.network.prior is None else self._in_chunks(photos, self.network.prior)

    @torch.inference_mode()
    def word_scores(self, photos: Tokens, words: Sequence[int], levels: torch.Tensor | None = None) -> torch.Tensor:
        """Scores how much each photo shows what each of these words names: (w, p) float32 on the CPU, higher is more.

        Only scores by one word can be compared, photo by photo; ``model.network.ret_network`` defines them.

        Args:
            words: their numbers, places in ``words``.
            levels: the photos' ``word_levels``, if they are known already.

        Raises ModelError: this checkpoint has no vocabulary.
        """
        vocabulary = self._vocabulary()
        chosen = torch.tensor(list(words), dtype=torch.int64, device=self.device)
        logits = self._in_chunks(photos, lambda ret: vocabulary(ret, chosen))
        known = self.word_levels(photos) if levels is None else levels
        return logits.T.cpu() if known is None else (logits - known[:, None]).T.cpu()

    def word_direction(self, word: int) -> torch.Tensor:
        """Returns the direction (d,) float32 of a word among photos' [Ret]. Raises ModelError without a vocabulary."""
        return self._vocabulary().directions[word].float()

    @torch.inference_mode()
    def word_levels(self, photos: Tokens) -> torch.Tensor | None:
        """Computes what all words of each photo take from its score by one word: (p,) float32 on this matcher's device.

        Keep the result if the same photos are searched by words again and again. It is None without a vocabulary.
        """
        vocabulary = self.network.vocabulary
        return None if vocabulary is None else self._in_chunks(photos, vocabulary.levels)

    @torch.inference_mode()
    def guesses(self, sketch: Tokens) -> tuple[Guess, ...]:
        """Guesses words for what a sketch shows: the most probable first, MOST_GUESSES at most.

        Words less probable than LEAST_PROBABLE are left out, so there may be none. Without a vocabulary there are none.
        sketch: a batch of one.
        """
        if self.network.vocabulary is None:
            return ()
        probabilities = self.network.vocabulary.guess(sketch.without_patches.to(self.device, torch.float32))[0].cpu()
        best = probabilities.topk(min(MOST_GUESSES, len(probabilities)))
        return tuple(
            Guess(self.words[number], probability)
            for probability, number in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            if probability >= LEAST_PROBABLE
        )

    @torch.inference_mode()
    def relation_logits(self, sketches: Tokens, photos: Tokens) -> torch.Tensor:
        """Computes relation scores before the sigmoid: (s, p) float32 on the CPU.

        What depends on one image alone is computed once for each sketch and once for each photo. Raises ModelError for
        a network with one vector for each picture.
        """
        network = as_zse(self.network)

        def side(tokens: Tokens, modality: Modality) -> Side:
            return network.project(tokens.to(self.device, torch.float32), modality)

        # Results stay on the device until the end: a copy after each chunk would make a GPU wait.
        out = torch.empty(len(sketches), len(photos), device=self.device)
        sides = [side(sketches[row : row + 1], "sketch") for row in range(len(sketches))]
        start = 0
        for index, real in fixed_chunks(len(photos), self.chunk, photos.features.device):
            photo = side(photos[index], "photo")
            for row, sketch in enumerate(sides):
                out[row, start : start + real] = network.relate(sketch, photo)[:real]
            start += real
        return out.cpu()

    def explain(self, sketch: Image.Image, photo: Image.Image) -> Explanation:
        """Explains why ``photo`` matches ``sketch``, by attention, token selection and correspondences of the pair.

        Raises BlankSketch for a sketch without ink.
        """
        return explain(
            self.network,
            self.variants_of(self.prepare(sketch, "sketch"), "sketch"),
            self.variants_of(self.prepare(photo, "photo"), "photo"),
        )

    def _encoded(self, images: torch.Tensor, modality: Modality) -> Tokens:
        """Encodes a chunk of images (n, 3, H, W). A chunk of sketches is one sketch."""
        if modality == "photo":
            return self.network.encode(images, modality)
        return averaged_variants(self.network.encode(sketch_variants(images, self.variants), modality))

    def _in_chunks(self, photos: Tokens, compute: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Applies ``compute`` to the [Ret] of photos (n, d), in chunks of one size: (p, ...) float32 on this device."""
        ret = photos.ret.to(self.device, torch.float32)
        if not len(ret):
            return compute(ret)
        return torch.cat([compute(ret[index])[:real] for index, real in fixed_chunks(len(ret), RET_CHUNK, self.device)])

    def _vocabulary(self) -> Vocabulary:
        if self.network.vocabulary is None:
            raise ModelError(
                f"this checkpoint ({self.config.name}) has no vocabulary; sketch-search model words gives it one"
            )
        return self.network.vocabulary

    def _threshold(self) -> float:
        if self.calibration.diffusion is None:
            raise ModelError(f"this checkpoint ({self.config.name}) has no threshold for diffusion; train it again")
        return self.calibration.diffusion


def fixed_chunks(
    count: int, size: int, device: torch.device | None = None
) -> Iterator[tuple[torch.Tensor | slice, int]]:
    """Cuts ``count`` rows into chunks of exactly ``size``; the last one is padded by repeating the last row.

    Fixed shapes keep the result of a row independent of the other rows, because matrix kernels round differently for
    different shapes.

    Yields:
        An index (a slice, or a tensor if rows repeat), and how many of its rows are not padding.
    """
    for start in range(0, count, size):
        if start + size <= count:
            yield slice(start, start + size), size
        else:
            index = torch.arange(start, start + size, device=device).clamp_(max=count - 1)
            yield index, count - start
