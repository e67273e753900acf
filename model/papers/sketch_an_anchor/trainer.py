"""A training of Sketch-an-Anchor: its start, its optimiser and the schedule of its learning rate."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from model.network import anchor_network_from
from model.papers.sketch_an_anchor.graph import AnchorGraph
from model.papers.sketch_an_anchor.objective import AnchoredNetwork, AnchorObjective
from model.papers.sketch_an_anchor.recipe import AnchorRecipe
from model.papers.sketch_an_anchor.semantic import SemanticAnchors
from model.papers.training_set import TrainingSet, check_classes
from model.training import Loop, digest, warmed_cosine


class AnchorTrainer(Loop[AnchoredNetwork]):
    """A training of a network of Sketch-an-Anchor.

    Args:
        recipe: how to train.
        data: the training pictures.
        anchors: of the same classes; those that the recipe's network has.
        backbone: weights of the pretrained ViT, under timm's key names.
        folder: of the training's state, as for ``Loop``.

    Raises:
        ModelError: the pictures are of one class only, or the backbone is not the recipe's.
    """

    def __init__(
        self,
        recipe: AnchorRecipe,
        data: TrainingSet,
        anchors: SemanticAnchors,
        backbone: dict[str, torch.Tensor],
        folder: Path,
    ) -> None:
        check_classes(data)
        self.recipe = recipe
        self.objective = AnchorObjective(recipe, data, anchors)
        network = anchor_network_from(recipe.config, backbone, recipe.seed)
        graph = None
        if recipe.anchoring.graph and recipe.config.anchors:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(recipe.seed)
                graph = AnchorGraph(recipe.config.units, recipe.anchoring.graph, recipe.anchoring.sharpness)
        origin = digest(repr(recipe) + data.key + _key(anchors), backbone)
        super().__init__(recipe, folder, AnchoredNetwork(network, graph), origin)
        self.resume()

    def make_optimiser(self) -> torch.optim.Adam:
        """Adam; the ViT has a learning rate of its own."""
        chosen, network = self.recipe.optimiser, self.network.network
        pretrained = [p for p in network.vit.parameters() if p.requires_grad]
        inside = {id(parameter) for parameter in pretrained}
        others = [p for p in self.network.parameters() if p.requires_grad and id(p) not in inside]
        groups = [{"params": pretrained, "part": chosen.backbone_rate}, {"params": others, "part": 1.0}]
        return torch.optim.Adam(groups, lr=chosen.rate, eps=chosen.epsilon)

    def prepare(self) -> None:
        """Sets the learning rates of the step that comes next."""
        rate = rate_at(self.recipe, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["part"]

    def losses(self) -> dict[str, torch.Tensor]:
        """The losses of the objective."""
        return self.objective.losses(self.network, self.step)


def rate_at(recipe: AnchorRecipe, step: int) -> float:
    """The learning rate of a step, from 0: raised linearly, then lowered by a cosine (section 4.2)."""
    chosen = recipe.optimiser
    return warmed_cosine(step, recipe.steps, chosen.warmup, chosen.rate, chosen.last_rate)


def _key(anchors: SemanticAnchors) -> str:
    """Digest of the anchors of words; those of photos follow from photos and backbone."""
    found = hashlib.sha256()
    if anchors.word is not None:
        found.update(anchors.word.vectors.contiguous().numpy().tobytes())
        found.update(anchors.word.neighbours.contiguous().numpy().tobytes())
    return found.hexdigest()
