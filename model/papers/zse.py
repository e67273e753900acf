"""Trains ZSE-SBIR by the paper's samples and losses, from a recipe to a checkpoint file."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from sketch_search.model.datasets import Corpus, find_drawn_photos, with_pairs
from sketch_search.model.engine import TwoSidedConfig
from sketch_search.model.errors import ModelError
from sketch_search.model.network import Network, from_backbone, read_backbone
from sketch_search.model.papers.pictures import (
    TrainingSet,
    draw_of_each,
    draw_some,
    find_pairs,
    normalize,
    training_set,
)
from sketch_search.model.papers.recipe import ZseRecipe
from sketch_search.model.papers.runs import CPU, Run, Trainer, digest, started


def instances(data: TrainingSet) -> list[tuple[torch.Tensor, dict[int, torch.Tensor]]]:
    """Finds each class's photos (n,), and those that sketches were drawn from, with the rows of these sketches.

    Raises ModelError if no class has two photos, one of them with a sketch.
    """
    found = ((photos, dict(find_pairs(data.drawn_from, photos))) for photos in data.photo_rows)
    usable = [(photos, sketches) for photos, sketches in found if sketches and len(photos) > 1]
    if not usable:
        raise ModelError(
            "no class has a sketch that is named after one of two photos or more; name sketches after their photos "
            "(NAME-1.png of NAME.jpg)"
        )
    return usable


def all_triplets_loss(distances: torch.Tensor, alike: torch.Tensor, margin: float) -> torch.Tensor:
    """Computes eq. 10 over all triplets of a step, from the distances of n sketches and h photos, (n, h).

    alike: (n, h) bool, whether they match.
    """
    triplets = alike[:, :, None] & ~alike[:, None, :]
    gaps = (distances[:, :, None] - distances[:, None, :] + margin).clamp(min=0)
    return (gaps * triplets).sum() / triplets.sum()


class ZseTrainer(Trainer[Network]):
    """A training of a network of ZSE-SBIR (section 3.6). start: takes the place of a new network on the backbone.

    A sample is a sketch, a photo of its class, and a photo of another class. Relation scores (eq. 11) and triplets of
    [Ret] (eq. 10) are of all sketches and photos of a step. With two pairs a sample also has a second sketch of the
    class: its first sketch and photo, and its second sketch and other photo have targets, and the first sketch and
    both photos are the triplet.

    At the level of instances a step has one class, and a sketch matches only the photo that it was drawn from. Raises
    ModelError if no class has two photos, one of them with a sketch.
    """

    recipe: ZseRecipe

    def __init__(
        self,
        recipe: ZseRecipe,
        data: TrainingSet,
        backbone: dict[str, torch.Tensor],
        folder: Path,
        device: torch.device = CPU,
        start: Network | None = None,
    ) -> None:
        self.recipe, self.data = recipe, data
        self.instances = instances(data) if recipe.samples.level == "instance" else []
        network = start or from_backbone(recipe.config, backbone, recipe.seed)
        origin = digest(recipe.identity + data.key, start.state_dict() if start else backbone)
        super().__init__(recipe, network, folder, origin, device)

    @property
    def trained(self) -> Network:
        return self.average

    def losses(self) -> dict[str, torch.Tensor]:
        network, options = self.network, self.recipe.samples
        config, (sketch_rows, photo_rows, of_sketch, of_photo) = network.config, self.batch(self.generator())
        with self.autocast():
            drawn = network.encode(normalize(self.data.sketches[sketch_rows], config).to(self.device), "sketch")
            shown = network.encode(normalize(self.data.photos[photo_rows], config).to(self.device), "photo")
            s, p = network.project(drawn, "sketch"), network.project(shown, "photo")
            if options.pairs == "all":
                first, second = torch.cartesian_prod(torch.arange(len(s)), torch.arange(len(p))).unbind(1)
            else:
                first = second = torch.arange(len(s))
            s, p = s.rows(first), p.rows(second)
            sketches, pictures = network.align(s, p)
            logits = network.relation_logits(sketches, pictures, s, p)
        alike = (of_sketch[first] == of_photo[second]).to(self.device)
        losses: dict[str, torch.Tensor] = {}
        if options.triplet:
            sides = (s, p) if options.ret == "encoder" else (sketches, pictures)
            one, other = (side.ret.float() for side in sides)
            if options.normalised:
                one, other = F.normalize(one, dim=1), F.normalize(other, dim=1)
            if options.pairs == "all":
                shape = len(sketch_rows), len(photo_rows)
                distances = F.pairwise_distance(one, other).reshape(shape)
                triplet = all_triplets_loss(distances, alike.reshape(shape), options.margin)
            else:
                count = options.count
                triplet = F.triplet_margin_loss(one[:count], other[:count], other[count:], options.margin)
            losses["triplet"] = options.triplet * triplet
        if options.relation:
            target = torch.where(alike, options.match, options.no_match)
            losses["relation"] = options.relation * F.mse_loss(logits.sigmoid(), target)
        return losses

    def batch(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Draws the rows of n sketches and of m photos, and what each shows: a class, or at the level of instances
        the row of a photo.

        With two pairs both are twice the samples: the first half matches, and the second half does not.
        """
        options, data = self.recipe.samples, self.data
        if self.instances:
            return self._instance_batch(generator)
        classes = len(data.photo_rows)
        own = torch.randint(classes, (options.count,), generator=generator)
        other = (own + torch.randint(1, classes, (options.count,), generator=generator)) % classes
        asked, shown = own if options.pairs == "all" else torch.cat([own, own]), torch.cat([own, other])
        sketches = draw_of_each(data.sketch_rows, asked, generator)
        return sketches, draw_of_each(data.photo_rows, shown, generator), asked, shown

    def _instance_batch(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        count = self.recipe.samples.count
        photos, sketches_of = self.instances[int(torch.randint(len(self.instances), (1,), generator=generator))]
        drawn = list(sketches_of)
        order = torch.randperm(len(drawn), generator=generator)
        own = torch.tensor([drawn[number] for number in order.tolist() * count])[:count]
        others = photos[torch.multinomial((photos[None] != own[:, None]).float(), 1, generator=generator)[:, 0]]
        asked = own if self.recipe.samples.pairs == "all" else torch.cat([own, own])
        sketches = torch.cat([draw_some(sketches_of[photo], 1, generator) for photo in asked.tolist()])
        shown = torch.cat([own, others])
        return sketches, shown, asked, shown

    def judged(self, validation: Corpus, share: int) -> tuple[Corpus, NDArray[np.bool_]]:
        """At the level of instances a sketch has one right photo among all of the validation."""
        if not self.instances:
            return super().judged(validation, share)
        pairs = with_pairs(Corpus(validation.sketches[::share], validation.photos))
        return pairs, find_drawn_photos(pairs)[:, None] == np.arange(len(pairs.photos))

    def make_optimiser(self) -> torch.optim.AdamW:
        chosen = self.recipe.optimiser
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            # The learnable tokenizer is not pretrained: it learns at the rate of the heads.
            pretrained = name.startswith("encoder.") and ".learnable." not in name
            groups.setdefault((pretrained, parameter.ndim > 1), []).append(parameter)
        return torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "rate": chosen.encoder_rate if pretrained else chosen.head_rate,
                    "weight_decay": chosen.decay if matrix else 0.0,
                }
                for (pretrained, matrix), parameters in groups.items()
            ]
        )


def zse_trainer(recipe: ZseRecipe, run: Run, training: Corpus, _: Corpus) -> tuple[ZseTrainer, dict[str, str]]:
    """Begins or continues a training of a network of ZSE-SBIR; see ``train_from_backbone``."""
    start = started(run, Network)
    if start and isinstance(start.config, TwoSidedConfig):
        raise ModelError(f"{run.start} is two-sided: continue it by a recipe such as two-sided/own")
    backbone = {} if start else read_backbone(run.needed_backbone)
    data = training_set(training, fewest=recipe.fewest_classes)
    return ZseTrainer(recipe, data, backbone, run.folder, run.device, start), {}
