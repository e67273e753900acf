"""Offers labelled pictures to PyTorch's loaders, prepared for a network."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from sketch_search.model.datasets.corpus import Picture
from sketch_search.model.engine import Modality, check_modality
from sketch_search.model.errors import ImageError, ModelError
from sketch_search.model.images import Preprocessing


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
        picture = self.pictures[row]
        try:
            image = self.preprocessing.open(picture.path, self.modality)
            pixels = self.preprocessing.prepare(image, self.modality)
        except ImageError as error:
            raise ModelError(f"{picture.path}: {error}; remove it or repair it") from error
        return torch.from_numpy(pixels), self._numbers[picture.label]
