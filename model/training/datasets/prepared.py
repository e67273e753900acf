"""Offers labelled pictures to PyTorch's loaders, prepared for a network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.utils.data import Dataset

from sketch_search.model.engine import Modality, check_modality
from sketch_search.model.errors import ImageError, ModelError
from sketch_search.model.images import Preprocessing, fit_photo
from sketch_search.model.images.ink import Pixels
from sketch_search.model.training.datasets.corpus import Picture


class PreparedPictures(Dataset[tuple[torch.Tensor, int]]):
    """Pictures as (3, H, W) float32 and class numbers, read on access, which may raise ModelError."""

    def __init__(
        self,
        pictures: Sequence[Picture],
        modality: Modality,
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
        with self._naming(row):
            pixels = self.preprocessing.prepare(
                self.preprocessing.open(self.pictures[row].path, self.modality), self.modality
            )
        return torch.from_numpy(pixels), self._numbers[self.pictures[row].label]

    def with_whole(self, row: int, side: int) -> tuple[torch.Tensor, Pixels]:
        """Reads a photo once, as (3, H, W) float32, and whole, as ``fit_photo`` scales it. Raises ModelError."""
        with self._naming(row):
            image = self.preprocessing.open(self.pictures[row].path, self.modality)
            return torch.from_numpy(self.preprocessing.prepare(image, self.modality)), fit_photo(image, side)

    @contextmanager
    def _naming(self, row: int) -> Iterator[None]:
        try:
            yield
        except ImageError as error:
            raise ModelError(f"{self.pictures[row].path}: {error}; remove it or repair it") from error
