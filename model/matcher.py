"""The public face of a checkpoint: prepare, encode, score, explain."""

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
# Photos whose prior, or words, or agreement with guesses, are computed at once. A search compares some 4,000 by vector.
RET_CHUNK = 512
# Images encoded at once: a query is one sketch, of which ``Matcher._encoded`` makes the variants; photos come many at a
# time.
ENCODE_CHUNK = {"sketch": 1, "photo": 16}
# Words that are guessed for a sketch: so many at most, and none below this probability, because no guess is better
# than a wrong one. Calibrated on sketches of trained things alone, 0.70 of others of these had a right guess, with 0.94
# guesses on average; those of validation classes, of which none could be right, had 0.62.
MOST_GUESSES = 3
LEAST_PROBABLE = 0.3


@dataclass(frozen=True)
class Guess:
    """A word that a sketch may show. probability: in 0..1."""

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
    """A checkpoint, ready to use.

    Args:
        path_or_name: a safetensors file, or "default" for the one that comes with the package.
        device: where to compute; "auto" for a GPU where there is one, else the CPU.
        dtype: precision of cross-attention and kernel; None takes the fastest here whose relation scores stay within
            1e-2 of float32's. The encoder works in float32.
        chunk: pairs scored at once; None for CHUNK on a CPU and GPU_CHUNK on a GPU. While it stays the same,
            scores do not depend on what is scored together.
        variants: how many variants of a sketch are encoded, from 1 to MOST_VARIANTS; None for as many as the
            checkpoint's calibration says. See ``model.network.tokens``.

    Raises ModelError: the file is missing, damaged or of another kind, or the device cannot be used; says what to do.
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
        calibration: what was chosen for its weights: methods, fusion weight, diffusion threshold.
        checkpoint_sha256: hex digest of the file it came from.
        preprocessing_fingerprint: hex digest that changes when ``prepare`` would give other pixels.
        device, dtype, chunk, variants: as ``load`` has them.
        book: the words of its vocabulary, to look them up; without any for a checkpoint without a vocabulary.
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
        """Hex digest of all that decides the tokens of photos: checkpoints that share it share their indexes.

        Of a two-sided network that is its photo side, and how many tokens it keeps; of others the whole checkpoint.
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
        """The words of this checkpoint's vocabulary, in its order; empty where it has none."""
        return self.book.words

    @property
    def best_method(self) -> Method:
        """The method that was best on the validation classes; "auto" means it."""
        return self.calibration.best_method

    def token_count(self, modality: Modality) -> int:
        """Tokens of an encoded image, [Ret] included."""
        return self.config.token_count(modality)

    def open(self, source: Source, modality: Modality) -> Image.Image:
        """Open a picture (bytes, path or stream) in the form that ``prepare`` expects.

        A large JPEG photo is decoded at a fraction of its size, which is much faster; every other picture, and every
        picture for a released network, is decoded whole. Raises what ``model.images.open_image`` raises.
        """
        return self.preprocessing.open(source, modality)

    def prepare(self, image: Image.Image, modality: Modality) -> torch.Tensor:
        """A picture as network input, (3, H, W) float32: cropped, resized and normalised as in this network's training.

        Raises BlankSketch for a sketch without ink.
        """
        return self.preprocessing.prepare(image, modality)

    @torch.inference_mode()
    def encode(self, images: torch.Tensor, modality: Modality) -> Tokens:
        """Images (b, 3, H, W) from ``prepare`` -> float32 tokens on this matcher's device.

        The tokens of an image do not depend on which others are encoded with it. Raises ModelError for another shape.
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
        """A picture (3, H, W) from ``prepare`` -> what is encoded of it, (v, 3, H, W) on this matcher's device.

        Those are ``variants`` variants of a sketch, and a photo as it is.
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
        """Every sketch against every photo: (s, p) float32 on the CPU, higher is better.

        Args:
            sketches, photos: tokens of any floating type, on any device.
            method: "rn", the relation score in (0, 1); "ret", minus the distance of [Ret]; "fused", a weighted sum of
                both; None takes the checkpoint's best.
            priors: the photos' ``priors``, where they are known already; only distances use them.
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
        """Scores by several methods, at the cost of the most expensive one. Raises ModelError for one it lacks."""
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
            # In float32 the last bit of a sigmoid depends on the logit's place in the matrix; rounded float64 does not.
            scores["rn"] = logits.double().sigmoid().float()
        fusion = self.calibration.fusion
        if logits is not None and distances is not None and fusion is not None and "fused" in methods:
            scores["fused"] = logits - fusion * distances
        return scores

    @torch.inference_mode()
    def diffuse(self, scores: torch.Tensor, ret: torch.Tensor, method: ScoredBy | None = None) -> torch.Tensor:
        """Scores (s, p) after photos that look alike have shared theirs, by ``model.ranking.diffused``.

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
        """(s, p) float32 on the CPU: distances of [Ret], as ``RetNetwork.ret_distances`` has them.

        priors: the photos' ``priors``, where they are known already.
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
        """(p,) float32 on this matcher's device: the priors of photos; None for a checkpoint without a prior.

        Keep the result where the same photos are compared by [Ret] again and again.
        """
        return None if self.network.prior is None else self._in_chunks(photos, self.network.prior)

    @torch.inference_mode()
    def word_scores(self, photos: Tokens, words: Sequence[int], levels: torch.Tensor | None = None) -> torch.Tensor:
        """(w, p) float32 on the CPU: how much each photo shows what each of these words names; higher is more.

        Scores by one word compare photos, as ``model.network.ret_network`` has them.

        Args:
            words: their numbers, places in ``words``.
            levels: the photos' ``word_levels``, where they are known already.

        Raises ModelError: this checkpoint has no vocabulary.
        """
        vocabulary = self._vocabulary()
        chosen = torch.tensor(list(words), dtype=torch.int64, device=self.device)
        logits = self._in_chunks(photos, lambda ret: vocabulary(ret, chosen))
        known = self.word_levels(photos) if levels is None else levels
        return logits.T.cpu() if known is None else (logits - known[:, None]).T.cpu()

    def word_direction(self, word: int) -> torch.Tensor:
        """(d,) float32: the direction of a word among photos' [Ret]. Raises ModelError without a vocabulary."""
        return self._vocabulary().directions[word].float()

    @torch.inference_mode()
    def word_levels(self, photos: Tokens) -> torch.Tensor | None:
        """(p,) float32 on this matcher's device: what all words of each photo take from its scores by one of them.

        Keep the result where the same photos are searched by words again and again. None without a vocabulary.
        """
        vocabulary = self.network.vocabulary
        return None if vocabulary is None else self._in_chunks(photos, vocabulary.levels)

    @torch.inference_mode()
    def guesses(self, sketch: Tokens) -> tuple[Guess, ...]:
        """The words that a sketch may show: the most probable first, MOST_GUESSES at most.

        Words less probable than LEAST_PROBABLE are left out, so there may be none; there is none without a vocabulary.
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
        """(s, p) float32 on the CPU: relation scores before the sigmoid.

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
        """Why ``photo`` matches ``sketch``: attention, token selection and correspondences of the pair.

        Raises BlankSketch for a sketch without ink.
        """
        return explain(
            self.network,
            self.variants_of(self.prepare(sketch, "sketch"), "sketch"),
            self.variants_of(self.prepare(photo, "photo"), "photo"),
        )

    def _encoded(self, images: torch.Tensor, modality: Modality) -> Tokens:
        """A chunk of images (n, 3, H, W) -> their tokens. A chunk of sketches is one sketch."""
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
        An index (a slice, or a tensor where rows repeat), and how many of its rows are not padding.
    """
    for start in range(0, count, size):
        if start + size <= count:
            yield slice(start, start + size), size
        else:
            index = torch.arange(start, start + size, device=device).clamp_(max=count - 1)
            yield index, count - start
