"""Scores every sketch of a corpus against every photo, by each method of a checkpoint; chooses calibrations by that."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from sketch_search.model import engine
from sketch_search.model.engine.detector import SIZE, Detector
from sketch_search.model.errors import ImageError, ModelError
from sketch_search.model.images import Pixels, Preprocessing, check_modality, fit_photo
from sketch_search.model.matcher import Matcher
from sketch_search.model.metrics import category_metrics
from sketch_search.model.search import gallery_of, search_drawing, search_things
from sketch_search.model.torch import RetNetwork, TorchEngine, fastest_dtype
from sketch_search.training.corpus import Corpus, Picture
from sketch_search.training.evaluation.figures import relevance
from sketch_search.training.tasks import Task

# The number of pictures that are prepared before the network encodes them. It bounds the memory for pixels.
PREPARED_AT_ONCE = 256
# The name of the scores of the default search.
SEARCH = "search"
# The results of a search by default.
RESULTS = 20
Calibrated = TypeVar("Calibrated", bound=RetNetwork)
BOTH: tuple[engine.Method, ...] = ("rn", "ret")
# The candidates for the weight of the fusion, and for the threshold of the diffusion.
FUSIONS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
DIFFUSIONS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)


class PreparedPictures(Dataset[tuple[torch.Tensor, int]]):
    """Pictures as (3, H, W) float32 and class numbers, read on access, which may raise ModelError."""

    def __init__(
        self,
        pictures: Sequence[Picture],
        modality: engine.Modality,
        preprocessing: Preprocessing,
        labels: Sequence[str] | None = None,
    ) -> None:
        """labels: all classes, such as ``Corpus.labels``; None for the sorted classes of the pictures."""
        check_modality(modality)
        self.pictures, self.modality, self.preprocessing = pictures, modality, preprocessing
        self.labels = tuple(sorted({picture.label for picture in pictures}) if labels is None else labels)
        self._numbers = {label: number for number, label in enumerate(self.labels)}

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.with_whole(row)[0], self._numbers[self.pictures[row].label]

    def with_whole(self, row: int, side: int = 1) -> tuple[torch.Tensor, Pixels]:
        """Reads a picture once, as (3, H, W) float32, and whole, as ``fit_photo`` scales it. Raises ModelError."""
        try:
            image = self.preprocessing.open(self.pictures[row].path, self.modality)
            return torch.from_numpy(self.preprocessing.prepare(image, self.modality)), fit_photo(image, side)
        except ImageError as error:
            raise ModelError(f"{self.pictures[row].path}: {error}; remove it or repair it") from error


def score_matrices(
    matcher: Matcher, corpus: Corpus, methods: Sequence[str] | None = None
) -> dict[str, NDArray[np.floating]]:
    """Computes scores (sketches, photos) float32 by each method, higher is better; then diffused, as "rn+diffusion".

    methods: None for all of the checkpoint. Raises ModelError if sketches or photos are missing, or no class has both.
    """
    if not corpus.sketches or not corpus.photos:
        raise ModelError("an evaluation needs sketches and photos; found " + counts(corpus))
    if not corpus.shared:
        raise ModelError("no sketch has a photo of its class; the two halves must use the same class names")
    queries, gallery = encode_both(matcher, corpus)
    chosen = [m for m in engine.METHODS if m in (methods or matcher.methods)]
    scores = matcher.scores_by(queries, gallery, chosen)
    matrices: dict[str, NDArray[np.floating]] = {method: scores[method] for method in chosen}
    if matcher.calibration.diffusion is not None:
        for method in chosen:
            matrices[f"{method}+diffusion"] = matcher.diffuse(scores[method], gallery.ret, method)
    return matrices


def task_matrices(
    matcher: Matcher, task: Task, methods: Sequence[str] | None = None, *, words: bool = False
) -> dict[str, NDArray[np.floating]]:
    """Computes the scores of a task, for ``measure``. methods: "search" ranks as a search does by default.

    words: adds "search", "word" and "search+word", searches by the sketch, by the word of its class, and by both.
    """
    if words or (methods and SEARCH in methods):
        others = [method for method in methods or matcher.methods if method != SEARCH]
        matrices = task_matrices(matcher, task, others) if others else {}
        # The detector was taught kinds that others hold back, so that their figures are computed without it.
        boxes = task.protocol in ("everyday", "fresh")
        return matrices | search_matrices(matcher, task.corpus, words=words, boxes=boxes)
    if task.protocol != "within":
        return score_matrices(matcher, task.corpus, methods)
    # The cosines of [Ret] among all pictures, sketches before photos.
    ret = engine.unit(np.concatenate([tokens.ret for tokens in encode_both(matcher, task.corpus)]))
    return {"ret": ret @ ret.T}


def search_matrices(
    matcher: Matcher, corpus: Corpus, *, words: bool = False, boxes: bool = False
) -> dict[str, NDArray[np.floating]]:
    """Searches the photos by each sketch as ``POST /search`` does by default: scores, -inf for photos not ranked.

    words: also by the word of each sketch's class, and by both; see ``task_matrices``. Raises ModelError if the
    vocabulary lacks a class.
    """
    photos, rows = encode_pictures(matcher, corpus.photos, "photo", boxes=boxes), dict[str, list[engine.Floats]]()
    gallery, count = gallery_of(photos, matcher), len(photos)
    search = partial(search_drawing, gallery, matcher, results=RESULTS)
    kinds = sorted({sketch.label for sketch in corpus.sketches}) if words else []
    texts = {label: matcher.words[matcher.book.find(label)] for label in kinds}
    by_word = {
        label: search_things(gallery, matcher, (), RESULTS, text=text).scores(count) for label, text in texts.items()
    }
    for sketch in corpus.sketches:
        drawing = matcher.preprocessing.drawing(matcher.open(sketch.path, "sketch"))
        if photos.regions is not None:
            drawing = matcher.divide(drawing)
        rows.setdefault(SEARCH, []).append(search(drawing).scores(count))
        if words:
            rows.setdefault("word", []).append(by_word[sketch.label])
            rows.setdefault(f"{SEARCH}+word", []).append(search(drawing, text=texts[sketch.label]).scores(count))
    return {name: np.stack(of_sketches) for name, of_sketches in rows.items()}


def encode_both(matcher: Matcher, corpus: Corpus) -> tuple[engine.Tokens, engine.Tokens]:
    """Encodes the sketches of a corpus, and its photos; see ``encode_pictures``."""
    return encode_pictures(matcher, corpus.sketches, "sketch"), encode_pictures(matcher, corpus.photos, "photo")


def encode_pictures(
    matcher: Matcher, pictures: Sequence[Picture], modality: engine.Modality, *, boxes: bool = False
) -> engine.Tokens:
    """Encodes all pictures in order; photos with their ``boxes`` if asked. Raises ModelError for an unreadable file."""
    parts, detector = [], Detector() if boxes else None
    for start in range(0, len(pictures), PREPARED_AT_ONCE):
        batch = PreparedPictures(pictures[start : start + PREPARED_AT_ONCE], modality, matcher.preprocessing)
        seen = (batch.with_whole(row, SIZE if detector else 1) for row in range(len(batch)))
        pixels, wholes = zip(*seen, strict=True)
        tokens = matcher.encode(torch.stack(pixels), modality)
        parts.append(replace(tokens, boxes=detector.detect_all(wholes)) if detector else tokens)
    return engine.Tokens.cat(parts)


def counts(corpus: Corpus) -> str:
    """Writes the size of a corpus in words."""
    return f"{len(corpus.sketches)} sketches and {len(corpus.photos)} photos of {len(corpus.labels)} classes"


def trained_matcher(
    network: RetNetwork, dtype: torch.dtype = torch.float32, methods: Sequence[engine.Method] = BOTH, variants: int = 1
) -> Matcher:
    """Copies a network in training into a matcher that scores by the methods that are being trained."""
    calibration = engine.Calibration(methods=tuple(methods), best_method=methods[0])
    copied = network.with_calibration(calibration).set_precision(dtype)
    return Matcher(TorchEngine(copied), "untracked", variants=variants)


def ret_matcher(network: RetNetwork) -> Matcher:
    """Copies a network into a matcher that scores by [Ret], in the precision that is fastest on this CPU."""
    return trained_matcher(network, fastest_dtype(network, torch.device("cpu")), methods=("ret",))


def calibrate(
    network: Calibrated,
    validation: Corpus,
    dtype: torch.dtype = torch.float32,
    methods: Sequence[engine.Method] = BOTH,
    relevant: NDArray[np.bool_] | None = None,
    variants: int = 1,
) -> tuple[Calibrated, dict[str, float]]:
    """Chooses the fusion weight, the best method and the threshold of diffusion by mAP@all on the validation classes.

    relevant: (sketches, photos), which photos are right; None for those of the sketch's class. variants: of a sketch.

    Returns a copy of the network with its calibration, and the mAP@all of each method and of the best one diffused.
    Raises ModelError without validation pictures.
    """
    if not validation.sketches or not validation.photos:
        raise ModelError("methods are chosen on validation classes; there are none")
    matcher = trained_matcher(network, dtype, methods, variants)
    queries, gallery = encode_both(matcher, validation)
    relevant = relevance(validation) if relevant is None else relevant

    def figure(scores: engine.Floats) -> float:
        return category_metrics(scores, relevant)["map_all"]

    scores: dict[engine.Method, engine.Floats] = {}
    fusion = None
    if "rn" in methods:
        logits = matcher.relation_logits(queries, gallery)
        scores["rn"] = engine.sigmoid(logits)
    if "ret" in methods:
        distances = matcher.ret_distances(queries, gallery)
        scores["ret"] = -distances
    if len(scores) == 2:
        fusion = max(FUSIONS, key=lambda weight: figure(logits - np.float32(weight) * distances))
        scores["fused"] = logits - np.float32(fusion) * distances
    figures = {str(method): figure(matrix) for method, matrix in scores.items()}
    after = {(m, c): figure(matcher.diffuse(s, gallery.ret, m, c)) for m, s in scores.items() for c in DIFFUSIONS}
    best, diffusion = max(after, key=lambda pair: after[pair])
    chosen = replace(network.calibration, methods=tuple(scores), best_method=best, fusion=fusion, diffusion=diffusion)
    all_figures = figures | {f"{best}+diffusion": after[best, diffusion]}
    return network.with_calibration(chosen), {name: round(value, 4) for name, value in all_figures.items()}
