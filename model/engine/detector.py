"""Finds the boxes of things of 80 kinds in photos, by a small detector: YOLOX-nano, on one thread of the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sketch_search.model.engine.files import PACKAGED
from sketch_search.model.engine.surface import threads
from sketch_search.model.engine.tokens import Floats
from sketch_search.model.errors import ModelError
from sketch_search.model.files import read_regular

#: The kinds of things, those of COCO, by their numbers.
KINDS = tuple(
    """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
    teddy bear, hair drier, toothbrush""".replace("\n    ", " ").split(", ")
)
#: The boxes kept of a photo; the kind of an unused one; and the longer side of the detector's input, a multiple of 32.
BOXES, NO_KIND, SIZE = 16, 255, 352
#: The file in the package, and its SHA-256.
DETECTOR = PACKAGED / "detector.onnx"
DETECTOR_SHA256 = "ecaf570a63b5a474b3f7f370bb32add3e2bdd58934321ef8b4b49dba5c93e20a"
#: Names what finds boxes, so that boxes found otherwise are found anew.
DETECTOR_NAME = f"yolox-nano {DETECTOR_SHA256[:12]} at {SIZE}"
_MOST_BYTES = 1 << 24
# Each of its grids has a place for every square of so many pixels.
_STRIDES = (8, 16, 32)
# Fills the input beside the picture, as in training. Inputs were squares there; here they end soon after the picture,
# since computing grey takes as long as computing a picture.
_GREY = 114
# The least certainty of a box, and the overlap (IoU) from which two of a kind are one.
_LEAST_CERTAIN, _SAME = 0.05, 0.5
# The logarithm of a side, in strides: larger ones exceed any picture, and the largest would not be finite.
_MOST_SIDE = 10


def no_boxes(photos: int) -> NDArray[np.uint8]:
    """Returns the boxes of photos without any: (photos, BOXES, 6)."""
    boxes = np.zeros((photos, BOXES, 6), np.uint8)
    boxes[:, :, 0] = NO_KIND
    return boxes


@lru_cache
def _grid_places(rows: int, columns: int) -> tuple[Floats, Floats]:
    """The column and row (n, 2) of each place of the grids over an input of this size, and its stride (n, 1)."""
    grids = [np.indices((rows // s, columns // s), np.float32)[::-1].reshape(2, -1).T for s in _STRIDES]
    strides = np.repeat(np.array(_STRIDES, np.float32), [len(grid) for grid in grids])
    return np.concatenate(grids), strides[:, None]


class Detector:
    """The detector, opened. Threads may share it, and each computes with itself alone."""

    def __init__(self, path: Path = DETECTOR) -> None:
        """Raises ModelError for a file that is missing, or another than the package's."""
        try:
            data = read_regular(path, _MOST_BYTES)
        except OSError as error:
            raise ModelError(f"{path} cannot be read ({error.strerror}); install sketch-search again") from error
        if (digest := hashlib.sha256(data).hexdigest()) != DETECTOR_SHA256:
            hashes = f"its SHA-256 is {digest[:12]}, not {DETECTOR_SHA256[:12]}"
            raise ModelError(f"{path} is not the detector of this version ({hashes}); install sketch-search again")
        # Reading boxes from an index needs no ONNX Runtime.
        from sketch_search.model.engine.runtime import open_session, session_options

        self._session = open_session(path, data, session_options(threads=1))

    def detect_all(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Finds the boxes in pictures, side by side: (p, BOXES, 6)."""
        with ThreadPoolExecutor(threads()) as pool:
            return np.stack([*pool.map(self.detect, pictures)])

    def detect(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Finds the boxes in a picture, (h, w, 3) RGB, of at most SIZE pixels on its longer side: (BOXES, 6).

        A row has the kind's number, the certainty (255 for 1), left, top, right and bottom (255 for the whole width
        or height), the most certain first. Unused rows have the kind NO_KIND, and zeros.
        """
        height, width = picture.shape[:2]
        rows, columns = (-(-side // _STRIDES[-1]) * _STRIDES[-1] for side in (height, width))
        pixels = np.full((1, 3, rows, columns), _GREY, np.float32)
        pixels[0, :, :height, :width] = picture[:, :, ::-1].transpose(2, 0, 1)
        places: Floats = self._session.run(None, {"images": pixels})[0][0]
        cells, strides = _grid_places(rows, columns)
        certainties = places[:, 4:5] * places[:, 5:]
        likely = np.flatnonzero(certainties.max(axis=1) >= _LEAST_CERTAIN)
        kinds, certainty = certainties[likely].argmax(axis=1), certainties[likely].max(axis=1)
        middle = (places[likely, :2] + cells[likely]) * strides[likely]
        half = np.exp(np.minimum(places[likely, 2:4], _MOST_SIDE)) * strides[likely] / 2
        corners = np.concatenate([middle - half, middle + half], axis=1) / np.array([width, height] * 2, np.float32)
        inside: Floats = corners.clip(0, 1).astype(np.float32)
        order = np.argsort(-certainty, kind="stable")
        # Nothing is left of a box in the grey.
        order = order[(inside[order, 2:] > inside[order, :2]).all(axis=1)]
        boxes, areas = no_boxes(1)[0], (inside[:, 2:] - inside[:, :2]).prod(axis=1)
        for row in boxes:
            if not len(order):
                break
            best, order = int(order[0]), order[1:]
            ends = np.concatenate([np.floor(inside[best, :2] * 255), np.ceil(inside[best, 2:] * 255)])
            row[:] = kinds[best], np.rint(certainty[best] * 255), *ends
            shared = np.minimum(inside[best, 2:], inside[order, 2:]) - np.maximum(inside[best, :2], inside[order, :2])
            overlap = shared.clip(0).prod(axis=1)
            same = overlap > _SAME * (areas[best] + areas[order] - overlap)
            order = order[~(same & (kinds[order] == kinds[best]))]
        return np.asarray(boxes)
