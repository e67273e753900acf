"""Trains ZSE-SBIR by the paper's samples and losses, from a recipe to a checkpoint file."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from model.datasets import Corpus
from model.network import Network, from_backbone, read_backbone
from model.papers.pictures import TrainingSet, one_of_each, sized, training_set
from model.papers.recipe import ZseRecipe
from model.papers.runs import Run, Trainer, digest

# Targets for the relation scores of matching pairs and of other pairs.
MATCH, NO_MATCH = 0.99, 0.01


class ZseTrainer(Trainer[Network]):
    """A training of a network of ZSE-SBIR (section 3.6). It follows the released code where the paper is silent.

    A sample is a sketch, another sketch of its class, a photo of this class, and a photo of another class. Relation
    scores of first sketch and photo, second sketch and other photo have targets (eq. 11); the triplet loss (eq. 10) is
    on [Ret] as it leaves the cross-attention.
    """

    recipe: ZseRecipe

    def __init__(self, recipe: ZseRecipe, data: TrainingSet, backbone: dict[str, torch.Tensor], folder: Path) -> None:
        self.recipe, self.data = recipe, data
        network = from_backbone(recipe.config, backbone, recipe.seed)
        super().__init__(recipe, network, folder, digest(repr(recipe) + data.key, backbone))

    @property
    def trained(self) -> Network:
        return self.average

    def losses(self) -> dict[str, torch.Tensor]:
        network, options = self.network, self.recipe.quadruplets
        count, config = options.samples, network.config
        sketch_rows, photo_rows = self.batch(self.generator())
        with self.autocast():
            drawn = network.encode(sized(self.data.sketches[sketch_rows], config), "sketch")
            shown = network.encode(sized(self.data.photos[photo_rows], config), "photo")
            s, p = network.project(drawn, "sketch"), network.project(shown, "photo")
            sketches, pictures = network.align(s, p)
            logits = network.relation_logits(sketches, pictures, s, p)
        losses: dict[str, torch.Tensor] = {}
        if options.triplet:
            anchor, photo = sketches.ret.float()[:count], pictures.ret.float()
            triplet = F.triplet_margin_loss(anchor, photo[:count], photo[count:], options.margin)
            losses["triplet"] = options.triplet * triplet
        if options.relation:
            target = torch.full((2 * count,), NO_MATCH)
            target[:count] = MATCH
            losses["relation"] = options.relation * F.mse_loss(logits.sigmoid(), target)
        return losses

    def batch(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws rows of sketches, first sketches before second ones, and of photos, matching photos before others."""
        classes, samples = len(self.data.photo_rows), self.recipe.quadruplets.samples
        own = torch.randint(classes, (samples,), generator=generator)
        other = (own + torch.randint(1, classes, (samples,), generator=generator)) % classes
        sketches = one_of_each(self.data.sketch_rows, torch.cat([own, own]), generator)
        return sketches, one_of_each(self.data.photo_rows, torch.cat([own, other]), generator)

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
    return ZseTrainer(recipe, training_set(training), read_backbone(run.backbone), run.folder), {}
