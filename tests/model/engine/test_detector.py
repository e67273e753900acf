"""The detector: the boxes of things in photos."""

from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sketch_search.model import Matcher
from sketch_search.model.engine.detector import BOXES, DETECTOR, KINDS, NO_KIND, SIZE, Detector, no_boxes
from sketch_search.model.errors import ModelError
from sketch_search.model.images.preprocess import fit_photo
from sketch_search.model.search import gallery_of
from sketch_search.model.training.corpus import Picture
from sketch_search.model.training.evaluation.scoring import encode_pictures
from tests.pictures import SHAPES, photo

# A woman in uniform, with a tie, from the waist up: her head is at the top, and she fills the picture.
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
PERSON, TIE = KINDS.index("person"), KINDS.index("tie")


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


def named(boxes: NDArray[np.uint8], kind: int) -> NDArray[np.int64]:
    return boxes[boxes[:, 0] == kind].astype(np.int64)


def test_a_person_and_a_tie_are_found_where_they_are(detector: Detector) -> None:
    boxes = detector.detect(fit_photo(Image.open(PORTRAIT), SIZE))
    assert boxes.shape == (BOXES, 6)
    assert boxes[:2, 0].tolist() == [PERSON, TIE]
    assert (boxes[:2, 1] > 180).all()
    corners = boxes[:2, 2:].astype(np.int64)
    assert np.abs(corners - [[4, 17, 255, 249], [110, 173, 147, 226]]).max() <= 12
    used = boxes[boxes[:, 0] != NO_KIND].astype(np.int64)
    assert (np.diff(used[:, 1]) <= 0).all()
    assert (used[:, 4:] > used[:, 2:4]).all()
    assert np.array_equal(boxes[len(used) :], no_boxes(1)[0][len(used) :])


def test_corners_are_shares_of_the_picture_whatever_its_shape(detector: Detector) -> None:
    portrait = Image.open(PORTRAIT)
    paper = Image.new("RGB", (2 * portrait.width, portrait.height), "white")
    paper.paste(portrait, (portrait.width, 0))
    (left,) = named(detector.detect(fit_photo(portrait, SIZE)), TIE)[:1]
    (right,) = named(detector.detect(fit_photo(paper, SIZE)), TIE)[:1]
    assert right[[2, 4]] == pytest.approx(128 + left[[2, 4]] / 2, abs=4)
    assert right[[3, 5]] == pytest.approx(left[[3, 5]], abs=8)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 200), (3, 5_000)])
def test_a_picture_of_any_size_and_mode_has_boxes_or_none(detector: Detector, size: tuple[int, int]) -> None:
    assert np.array_equal(detector.detect(fit_photo(Image.new("CMYK", size), SIZE)), no_boxes(1)[0])


def test_another_file_is_refused_by_its_hash(tmp_path: Path) -> None:
    changed = bytearray(DETECTOR.read_bytes())
    changed[len(changed) // 2] ^= 1
    other = tmp_path / "detector.onnx"
    other.write_bytes(changed)
    with pytest.raises(ModelError, match=r"is not the detector of this version .* install sketch-search again"):
        Detector(other)
    with pytest.raises(ModelError, match=r"missing\.onnx cannot be read .* install sketch-search again"):
        Detector(tmp_path / "missing.onnx")


def test_photos_are_encoded_with_boxes_if_asked(detector: Detector, default: Matcher, tmp_path: Path) -> None:
    photo(SHAPES[0], 240, 1).save(tmp_path / "made.png")
    photos = [Picture(PORTRAIT, "a", "a"), Picture(tmp_path / "made.png", "b", "b")]
    encoded = encode_pictures(default, photos, "photo", boxes=True)
    assert encoded.boxes is not None
    assert np.array_equal(encoded.boxes[0], detector.detect(fit_photo(Image.open(PORTRAIT), SIZE)))
    assert np.array_equal(encoded.features, encode_pictures(default, photos, "photo").features)
    gallery = gallery_of(encoded, default)
    assert gallery.boxes_kept
    assert np.array_equal(gallery._photos.photo_boxes(np.argsort(gallery.ids)), encoded.boxes)
    without = gallery_of(replace(encoded, boxes=None), default)
    assert not without.boxes_kept
    assert np.array_equal(without._photos.photo_boxes(np.arange(2)), no_boxes(2))
