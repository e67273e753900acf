"""A training of CLIP-AT: its start, its optimiser and the schedule of its learning rates."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from model.errors import ModelError
from model.network import ClipAtNetwork, PretrainedVit, clip_at_network_from, with_learned
from model.papers.clip_at.objective import CategoryObjective, ClipAtObjective, FineGrainedObjective, Trained
from model.papers.clip_at.recipe import ClipAtRecipe
from model.papers.training_set import TrainingSet, check_classes
from model.training import Loop, digest, warmed_cosine


class ClipAtTrainer(Loop[Trained]):
    """A training of a network of CLIP-AT. Its state holds what is learned, not the frozen encoder.

    Args:
        recipe: how to train.
        data: the training pictures.
        texts: (c, d) L2-normalised, the text vectors of their classes.
        vit: the pretrained ViT.
        folder: of the training's state, as for ``Loop``.

    Raises:
        ModelError: the pictures are of one class only, or do not fit the recipe otherwise; so does the ViT.
    """

    def __init__(
        self, recipe: ClipAtRecipe, data: TrainingSet, texts: torch.Tensor, vit: PretrainedVit, folder: Path
    ) -> None:
        check_classes(data)
        self.recipe = recipe
        self.start: ClipAtNetwork = clip_at_network_from(recipe.config(vit), vit.weights, recipe.seed)
        to_text = None
        if not vit.layout.projection:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(recipe.seed)
                to_text = nn.Linear(self.start.config.width, texts.shape[1], bias=False)
                nn.init.orthogonal_(to_text.weight)
        elif texts.shape[1] != self.start.config.width:
            raise ModelError(f"text vectors of {texts.shape[1]} numbers do not fit {self.start.config.width} of images")
        kind = FineGrainedObjective if recipe.fine_grained else CategoryObjective
        self.objective: ClipAtObjective = kind(recipe, data, self.start, texts)
        words = hashlib.sha256(texts.contiguous().numpy().tobytes()).hexdigest()
        origin = digest(repr(recipe) + data.key + words, vit.weights)
        super().__init__(recipe, folder, Trained(self.start.learned, to_text), origin)
        self.resume()

    @property
    def trained(self) -> ClipAtNetwork:
        """The network as it would be saved now: the average over steps. Its encoder is that of the training."""
        return with_learned(self.start, self.average.learned)

    def make_optimiser(self) -> torch.optim.Adam:
        """Adam; LayerNorms, prompts and the projection to text vectors have learning rates of their own."""
        chosen, learned = self.recipe.optimiser, self.network.learned
        groups = [
            {"params": list(learned.norms.parameters()), "rate": chosen.encoder_rate},
            {"params": list(learned.prompts.parameters()), "rate": chosen.prompt_rate},
        ]
        if self.network.to_text is not None:
            groups.append({"params": list(self.network.to_text.parameters()), "rate": chosen.text_rate})
        return torch.optim.Adam(groups)

    def prepare(self) -> None:
        """Sets the learning rates of the step that comes next."""
        share = share_at(self.recipe, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = share * group["rate"]

    def losses(self) -> dict[str, torch.Tensor]:
        """The losses of the objective."""
        return self.objective.losses(self.network, self.step)


def share_at(recipe: ClipAtRecipe, step: int) -> float:
    """The share of the learning rates at a step, from 0: raised linearly to 1, then lowered by a cosine."""
    chosen = recipe.optimiser
    return warmed_cosine(step, recipe.steps, chosen.warmup, 1.0, chosen.last)
