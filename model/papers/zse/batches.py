"""Which pictures a step of the default objective sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model.papers.recipe import Batch
from model.papers.training_set import TrainingSet
from model.papers.zse.teacher import Teacher


@dataclass(frozen=True)
class Rows:
    """The pictures of one step, as rows of a TrainingSet; all int64.

    Attributes:
        labels: (n,) the class of each photo.
        photos: (n,). sketches: (n * k,), the k sketches of each photo's class together.
        further: (f,) numbers of classes without photos; further_sketches: (2 f,), two of each.
        filtered: (d,) photos of which line drawings are made.
        lines: (l,) line drawings; lines_of: (l,) their photos.
    """

    labels: torch.Tensor
    photos: torch.Tensor
    sketches: torch.Tensor
    further: torch.Tensor
    further_sketches: torch.Tensor
    filtered: torch.Tensor
    lines: torch.Tensor
    lines_of: torch.Tensor

    @property
    def drawn(self) -> torch.Tensor:
        """(d + l,): the photos of all line drawings."""
        return torch.cat([self.filtered, self.lines_of])

    @property
    def sketch_labels(self) -> torch.Tensor:
        """(n * k,): the class of each sketch."""
        return self.labels.repeat_interleave(len(self.sketches) // len(self.labels))


class Sampler:
    """Draws the pictures of a step: some classes, part of which look alike to the teacher, and what goes with them."""

    def __init__(self, batch: Batch, data: TrainingSet, teacher: Teacher) -> None:
        self.batch, self.data = batch, data
        self.classes = teacher.classes
        means = F.normalize(teacher.class_means(teacher.features), dim=1)
        self._neighbours = (means @ means.T).fill_diagonal_(-2).argsort(dim=1, descending=True)
        # Two sketches of a class are needed, so that one can be found by the other.
        several = [number for number, rows in enumerate(data.further_rows) if len(rows) > 1]
        self._further = torch.tensor(several, dtype=torch.int64)

    def sample(self, generator: torch.Generator) -> Rows:
        """The rows of one step; the generator decides all."""
        batch, data = self.batch, self.data
        labels, sketches, photos = self._classes_with_both(generator)
        further = self._further[torch.randperm(len(self._further), generator=generator)[: batch.further]]
        two_each = [_two(data.further_rows[number], generator) for number in further.tolist()]
        filtered = torch.randint(len(data.photos), (batch.drawn,), generator=generator)
        lines = torch.randint(max(1, len(data.lines)), (batch.lines,), generator=generator)
        none = torch.empty(0, dtype=torch.int64)
        return Rows(
            labels=labels,
            photos=photos,
            sketches=sketches,
            further=further,
            further_sketches=torch.cat([none, *two_each]),
            filtered=filtered,
            lines=lines,
            lines_of=data.line_photos[lines],
        )

    def _classes_with_both(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Labels (n,), rows of the sketches (n * sketches,) with those of a photo together, rows of the photos (n,)."""
        batch, data = self.batch, self.data
        classes = self._classes(generator)
        if batch.photos == 1:
            sketches = [_some(data.sketch_rows[c], batch.sketches, generator) for c in classes.tolist()]
            photos = [_some(data.photo_rows[c], 1, generator) for c in classes.tolist()]
            return classes, torch.cat(sketches), torch.cat(photos)
        chosen = []
        for c in classes.tolist():
            drawn_from = data.pairs[c]
            order = torch.randperm(len(drawn_from), generator=generator)[: batch.photos]
            chosen += [(c, *drawn_from[n]) for n in order.tolist()]
        labels = torch.tensor([c for c, _, _ in chosen])
        photo_rows = torch.tensor([photo for _, photo, _ in chosen])
        return labels, torch.cat([_some(rows, batch.sketches, generator) for _, _, rows in chosen]), photo_rows

    def _classes(self, generator: torch.Generator) -> torch.Tensor:
        count = min(self.batch.classes, self.classes)
        order = torch.randperm(self.classes, generator=generator)
        near = self._neighbours[order[0], : round(self.batch.near * count)]
        chosen = torch.cat([order[:1], near])
        rest = order[~torch.isin(order, chosen)]
        return torch.cat([chosen, rest])[:count]


def _some(rows: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    return rows[torch.randint(len(rows), (count,), generator=generator)]


def _two(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[:2]]
