"""What a step of CLIP-AT sees, and its losses: of categories, and of fine-grained pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from model.errors import ModelError
from model.network import ClipAtNetwork, Learned, Modality
from model.papers.augmentation import Augmentation
from model.papers.clip_at.losses import (
    average_divergence,
    category_distances,
    classification_loss,
    different_orders,
    hard_triplet_loss,
    log_densities,
    log_softmaxes,
    relative_distances,
    shuffled,
    triplet_loss,
)
from model.papers.clip_at.recipe import ClipAtRecipe
from model.papers.training_set import TrainingSet, sized


class Trained(nn.Module):
    """What a training changes: prompts, LayerNorms and, beside the network, the projection to the text vectors.

    CLIP's vectors are compared with its text vectors as they are. Those of another ViT have another width, so that they
    need a linear map (``to_text``), which does not get into the checkpoint.
    """

    def __init__(self, learned: Learned, to_text: nn.Linear | None) -> None:
        super().__init__()
        self.learned, self.to_text = learned, to_text

    def beside_texts(self, vectors: torch.Tensor) -> torch.Tensor:
        """The vectors (n, width) of pictures, as they are compared with text vectors."""
        compared: torch.Tensor = vectors if self.to_text is None else self.to_text(vectors)
        return compared


class ClipAtObjective(ABC):
    """The losses of a step. The recipe's seed and the step decide all random choices.

    Args:
        network: whose frozen encoder is used; its own learned parts are not.
        texts: (c, d) L2-normalised, of the training's classes.
    """

    def __init__(self, recipe: ClipAtRecipe, data: TrainingSet, network: ClipAtNetwork, texts: torch.Tensor) -> None:
        self.recipe, self.data, self.texts = recipe, data, texts
        self.encoder, self.config = network.encoder, network.config

    @abstractmethod
    def losses(self, trained: Trained, step: int) -> dict[str, torch.Tensor]:
        """The losses by name; a step lowers their sum."""

    def vectors(self, trained: Trained, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        """(n, 3, H, W) normalised pixels -> (n, width) float32."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.recipe.dtype == torch.bfloat16):
            found: torch.Tensor = self.encoder(images, *trained.learned.of(modality))
        return found.float()

    def classification(
        self, trained: Trained, sketch: torch.Tensor, photo: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """The classification losses of sketches and of photos, weighted."""
        losses = [
            classification_loss(trained.beside_texts(vectors), labels, self.texts, self.recipe.losses.temperature)
            for vectors in (sketch, photo)
        ]
        return self.recipe.losses.classes * torch.stack(losses).sum()


class CategoryObjective(ClipAtObjective):
    """Each sketch with a photo of its class; the photo of another class of the batch is the wrong one."""

    def losses(self, trained: Trained, step: int) -> dict[str, torch.Tensor]:
        """Triplets and classification."""
        weights = self.recipe.losses
        augment = Augmentation(self.recipe.seed * 1_000_003 + step)
        labels, sketches, photos = self._batch(augment)
        sketch = self.vectors(trained, sized(sketches, self.config), "sketch")
        photo = self.vectors(trained, sized(photos, self.config), "photo")
        losses: dict[str, torch.Tensor] = {}
        if weights.triplet:
            wrong = photo[others(labels, augment.generator)]
            losses["triplet"] = weights.triplet * triplet_loss(sketch, photo, wrong, weights.margin)
        if weights.classes:
            losses["classes"] = self.classification(trained, sketch, photo, labels)
        return losses

    def _batch(self, augment: Augmentation) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Classes (b,), and a sketch (b, 1, H, W) and a photo (b, 3, H, W) of each, float32 in [0, 1].

        No class comes twice as long as there are others.
        """
        generator, data, size = augment.generator, self.data, self.recipe.batch
        classes = len(data.photo_rows)
        rounds = [torch.randperm(classes, generator=generator) for _ in range(-(-size // classes))]
        labels = torch.cat(rounds)[:size]

        def one_of_each(rows: tuple[torch.Tensor, ...]) -> torch.Tensor:
            return torch.stack([one_of(rows[c], generator) for c in labels.tolist()])

        sketches = data.sketches[one_of_each(data.sketch_rows)].float() / 255
        photos = data.photos[one_of_each(data.photo_rows)].float() / 255
        if self.recipe.augment:
            sketches, photos = 1 - augment.sketches(1 - sketches), augment.photos(photos)
        return labels, sketches, photos


class FineGrainedObjective(ClipAtObjective):
    """Pairs of several categories: each sketch has to find the very photo that it was drawn from.

    Raises ModelError where too few categories have as many pairs as a step needs, and where pictures cannot be cut into
    the recipe's patches.
    """

    def __init__(self, recipe: ClipAtRecipe, data: TrainingSet, network: ClipAtNetwork, texts: torch.Tensor) -> None:
        super().__init__(recipe, data, network, texts)
        self.pairs = recipe.batch // recipe.categories
        self.usable = [label for label, pairs in enumerate(data.pairs) if len(pairs) >= self.pairs]
        if len(self.usable) < recipe.categories:
            raise ModelError(
                f"{len(self.usable)} categories have {self.pairs} photos with sketches drawn from them, and the recipe "
                f"needs {recipe.categories}; name sketches after their photos (NAME-1.png of NAME.jpg), add some, or "
                "lower batch or categories"
            )
        if recipe.losses.patches and self.config.image_size % recipe.losses.patch_grid:
            raise ModelError(
                f"{self.config.image_size} pixels cannot be cut into {recipe.losses.patch_grid} equal rows"
            )

    def losses(self, trained: Trained, step: int) -> dict[str, torch.Tensor]:
        """Hard triplets, classification, the divergence of the categories (C), and shuffled patches."""
        weights, count = self.recipe.losses, self.recipe.categories
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        labels, sketch_rows, photo_rows = self._batch(generator)
        sketches = sized(self.data.sketches[sketch_rows].float() / 255, self.config)
        photos = sized(self.data.photos[photo_rows].float() / 255, self.config)
        sketch, photo = self.vectors(trained, sketches, "sketch"), self.vectors(trained, photos, "photo")
        by_category = (count, self.pairs, self.config.width)
        distances = category_distances(sketch.reshape(by_category), photo.reshape(by_category))
        losses: dict[str, torch.Tensor] = {}
        if weights.triplet:
            losses["triplet"] = weights.triplet * hard_triplet_loss(distances, weights.margin)
        if weights.classes:
            losses["classes"] = self.classification(trained, sketch, photo, labels)
        if weights.divergence:
            relative = relative_distances(distances)
            density = weights.distribution == "density"
            logs = log_densities(relative, weights.bandwidth) if density else log_softmaxes(relative)
            losses["divergence"] = weights.divergence * average_divergence(logs)
        if weights.patches:
            first, second = different_orders(len(labels), weights.patch_grid, generator)
            alike = self.vectors(trained, shuffled(sketches, first), "sketch")
            right, wrong = (self.vectors(trained, shuffled(photos, order), "photo") for order in (first, second))
            losses["patches"] = weights.patches * triplet_loss(alike, right, wrong, weights.patch_margin)
        return losses

    def _batch(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Categories (b,), and the rows of sketches and of the photos that they were drawn from, by category."""
        chosen = torch.randperm(len(self.usable), generator=generator)[: self.recipe.categories]
        labels, sketches, photos = [], [], []
        for label in (self.usable[number] for number in chosen.tolist()):
            pairs = self.data.pairs[label]
            for number in torch.randperm(len(pairs), generator=generator)[: self.pairs].tolist():
                photo, drawn = pairs[number]
                labels.append(label)
                sketches.append(int(one_of(drawn, generator)))
                photos.append(photo)
        return torch.tensor(labels), torch.tensor(sketches), torch.tensor(photos)


def one_of(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One of these rows (n,), at random."""
    return rows[torch.randint(len(rows), (), generator=generator)]


def others(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """For each place of a batch (b,) a random one that has another label. There must be two labels at least."""
    different = (labels[:, None] != labels[None]).float()
    return torch.multinomial(different, 1, generator=generator)[:, 0]
