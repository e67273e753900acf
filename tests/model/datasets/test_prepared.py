"""Labelled pictures are offered to PyTorch's loaders."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from sketch_search.model.datasets import PreparedPictures, read_class_folders
from sketch_search.model.errors import ModelError
from sketch_search.model.images import Preprocessing
from tests.learning import write_class_folders

LOOK = Preprocessing(64)


def test_a_loader_gets_pixels_as_the_network_takes_them_and_numbers_of_classes(tmp_path: Path) -> None:
    corpus = write_class_folders(tmp_path, seeds=range(2), shapes=("circle", "star", "square"))
    photos = PreparedPictures(corpus.photos, "photo", LOOK, ("other", *corpus.labels))
    ((pixels, labels),) = DataLoader(photos, batch_size=len(photos))
    assert (pixels.shape, pixels.dtype) == ((6, 3, 64, 64), torch.float32)
    assert [photos.labels[label] for label in labels] == [photo.label for photo in corpus.photos]
    last = corpus.photos[-1]
    assert torch.equal(pixels[-1], torch.from_numpy(LOOK.prepare(LOOK.open(last.path, "photo"), "photo")))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_class_folders(tmp_path, seeds=range(1), shapes=("circle",))
    broken = tmp_path / "photo" / "circle" / "000.png"
    broken.write_bytes(b"no picture")
    photos = PreparedPictures(read_class_folders(tmp_path).photos, "photo", LOOK)
    with pytest.raises(ModelError, match=rf"{broken}: .*; remove it or repair it"):
        photos[0]
