"""What a step of Sketch-an-Anchor sees, and its losses: InfoNCE, and the anchored contrastive loss in six variants."""

from __future__ import annotations

import torch
from torch import nn

from model.network import Anchor, AnchorNetwork, Representations
from model.papers.augmentation import Augmentation
from model.papers.sketch_an_anchor.graph import AnchorGraph
from model.papers.sketch_an_anchor.losses import anchored_contrastive_loss, info_nce
from model.papers.sketch_an_anchor.recipe import AnchorRecipe
from model.papers.sketch_an_anchor.semantic import SemanticAnchors, similarities, widened
from model.papers.training_set import TrainingSet, sized


class AnchoredNetwork(nn.Module):
    """What a training changes: the network and, beside it, the graph that adapts the anchors.

    Only the network gets into the checkpoint.
    """

    def __init__(self, network: AnchorNetwork, graph: AnchorGraph | None) -> None:
        super().__init__()
        self.network, self.graph = network, graph

    def adapted(self, anchors: dict[Anchor, torch.Tensor]) -> dict[Anchor, torch.Tensor]:
        """(c, units) of each: what hidden representations are compared with (section 3.5)."""
        if self.graph is not None:
            return self.graph(anchors)  # type: ignore[no-any-return]
        return {name: widened(of_one, self.network.config.units) for name, of_one in anchors.items()}


class AnchorObjective:
    """Sketches and photos that are paired by class, and the losses on them; the losses count equally (section 3.5)."""

    def __init__(self, recipe: AnchorRecipe, data: TrainingSet, anchors: SemanticAnchors) -> None:
        self.recipe, self.data, self.anchors = recipe, data, anchors

    def losses(self, trained: AnchoredNetwork, step: int) -> dict[str, torch.Tensor]:
        """The losses by name; a step lowers their sum. The recipe's seed and the step decide all random choices."""
        recipe, network = self.recipe, trained.network
        augment = Augmentation(recipe.seed * 1_000_003 + step)
        labels, sketches, photos = self._batch(augment)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.dtype == torch.bfloat16):
            pixels = torch.cat([sized(sketches, network.config), sized(photos, network.config)])
            tokens = network.retrieval_tokens(pixels).float()
        tokens = scaled_gradient(tokens, recipe.optimiser.backbone_gradient)
        sketch, photo = (network.represent(half) for half in tokens.chunk(2))
        drawn = self.anchors.drawn(recipe.anchoring.swap, recipe.anchoring.randomised, augment.generator)
        losses = {"nce": info_nce(sketch.ret, photo.ret, recipe.temperature)}
        return losses | self._anchored(sketch, photo, labels, drawn, trained.adapted(drawn) if drawn else {})

    def _anchored(
        self,
        sketch: Representations,
        photo: Representations,
        labels: torch.Tensor,
        drawn: dict[Anchor, torch.Tensor],
        adapted: dict[Anchor, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """The anchored contrastive losses: of sketches and of photos with anchors, of sketches with photos."""
        temperature, sharpness = self.recipe.temperature, self.recipe.anchoring.sharpness
        losses: dict[str, torch.Tensor] = {}
        for name, of_sketches, of_photos in zip(drawn, sketch.hidden, photo.hidden, strict=False):
            alike = similarities(drawn[name])[labels]
            for what, vectors in (("sketch", of_sketches), ("photo", of_photos)):
                losses[f"{name}_{what}"] = anchored_contrastive_loss(
                    vectors, adapted[name], alike, temperature, sharpness
                )
            losses[f"{name}_sample"] = anchored_contrastive_loss(
                of_sketches, of_photos, alike[:, labels], temperature, sharpness
            )
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
            return torch.stack([rows[c][torch.randint(len(rows[c]), (), generator=generator)] for c in labels.tolist()])

        sketches = data.sketches[one_of_each(data.sketch_rows)].float() / 255
        photos = data.photos[one_of_each(data.photo_rows)].float() / 255
        if self.recipe.augment:
            sketches, photos = 1 - augment.sketches(1 - sketches), augment.photos(photos)
        return labels, sketches, photos


def scaled_gradient(x: torch.Tensor, factor: float) -> torch.Tensor:
    """The same values, whose gradient is multiplied by ``factor`` on its way back."""
    return x * factor + x.detach() * (1 - factor)
