"""Training of a two-sided network: its sketch side against photos that do not change, then what compares pairs.

Photos are encoded once. In the first phase sketches learn to lie where photos of their class do; in the second the
sketch side is left as it is, and cross-attention and relation network learn which photo of a batch each sketch fits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from model.checkpoint import file_sha256, keep_photo_side, load_zse_network, photo_side_state, save_checkpoint
from model.datasets import cache_folder, normalised, subsampled
from model.errors import ModelError
from model.evaluation import counts
from model.images import Preprocessing
from model.network import Network, Tokens, TwoSidedEncoder
from model.papers.pictures import (
    Augmentation,
    TrainingSet,
    kept_tensors,
    one_of_each,
    sized,
    training_corpora,
    training_set,
)
from model.papers.recipe import TwoSidedRecipe
from model.papers.runs import Run, Trainer, run_steps
from model.papers.zse.prior import with_chosen_prior, with_prior
from model.papers.zse.trainer import large_validation, listwise_loss
from model.training import calibrated, digest, warmed_cosine

# Photos encoded at once.
_PHOTOS = 16
# The largest factor of cosines: without a bound it grows for as long as sketches can be told apart.
_MOST_SCALE = 60.0
# Sketches of each class that give the first point of a class without photos.
_FIRST_SKETCHES = 3


class SketchSide(nn.Module):
    """All of the network but its photo side is trained, and points for classes that have no photos.

    Attributes:
        points: (k, d), where sketches of the k classes without photos are to lie.
        log_scale: the logarithm of what cosines are multiplied by in the first phase.
    """

    def __init__(self, network: Network, points: int, temperature: float) -> None:
        super().__init__()
        encoder = network.encoder
        if not isinstance(encoder, TwoSidedEncoder) or network.cross is None or network.ret_term is None:
            raise ModelError(f"{network.config.name} is no two-sided network; name its preset in the recipe")
        self.tuning, self.head = encoder.tuning, encoder.head
        self.cross, self.relation, self.ret_term = network.cross, network.relation, network.ret_term
        self.points = nn.Parameter(torch.zeros(points, network.config.width))
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def pairs(self) -> list[nn.Module]:
        """The modules of the second phase."""
        return [self.head.tokens, self.cross, self.relation, self.ret_term]


class TwoSidedTrainer(Trainer[SketchSide]):
    """A training of the sketch side.

    Args:
        recipe: how to train.
        data: the training pictures.
        network: a new or trained network; its photo side stays as it is.
        folder: of the training's state, as for ``Loop``; the photos' tokens are kept there, too.
    """

    recipe: TwoSidedRecipe

    def __init__(self, recipe: TwoSidedRecipe, data: TrainingSet, network: Network, folder: Path) -> None:
        self.recipe, self.data, self.base = recipe, data, network
        network.requires_grad_(False).set_precision(recipe.dtype)
        if network.cross is not None:
            network.cross.float()
        self.rows = (*data.sketch_rows, *data.further_rows)
        side = SketchSide(network, len(data.further_rows), recipe.temperature).requires_grad_(True)
        state = {name: value for name, value in network.state_dict().items() if "photo_side" not in name}
        super().__init__(recipe, side, folder, digest(repr(recipe) + data.key + network.config.photo_side, state))
        self.photos = self._encoded_photos()
        rets = F.normalize(self.photos.ret, dim=1)
        self.means = F.normalize(torch.stack([rets[rows].mean(dim=0) for rows in data.photo_rows]), dim=1)
        if not self.state_path.exists():
            self._begin()
        self.resume()

    @property
    def trained(self) -> Network:
        """The network as it would be saved now: the average over steps."""
        average, network = self.average, self.base
        state = network.state_dict()
        for name, part in (
            ("encoder.tuning", average.tuning),
            ("encoder.head", average.head),
            ("cross", average.cross),
            ("relation", average.relation),
            ("ret_term", average.ret_term),
        ):
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        other = Network(network.config, network.calibration)
        other.load_state_dict({name: value.float() for name, value in state.items()})
        return other.requires_grad_(False).eval()

    def make_optimiser(self) -> torch.optim.AdamW:
        """AdamW; what a phase does not train has no gradient in it."""
        chosen, side = self.recipe.optimiser, self.network
        points, first = [side.points], [*side.tuning.parameters(), side.log_scale]
        head = [side.head.ret.weight, side.head.centre]
        pairs = [parameter for module in side.pairs for parameter in module.parameters()]
        return torch.optim.AdamW(
            [
                {"params": first, "rate": chosen.tuning_rate, "phase": 0},
                {"params": head, "rate": chosen.head_rate, "phase": 0},
                {"params": points, "rate": chosen.point_rate, "phase": 0},
                {"params": pairs, "rate": chosen.pair_rate, "phase": 1},
            ],
            weight_decay=0.0,
            betas=(0.9, 0.99),
        )

    def prepare(self) -> None:
        """Sets the learning rates of the step that comes next; what the other phase trains stays as it is."""
        recipe = self.recipe
        second = self.step >= recipe.sketch_steps
        step, steps = (
            (self.step - recipe.sketch_steps, recipe.pair_steps) if second else (self.step, recipe.sketch_steps)
        )
        factor = warmed_cosine(step, steps, recipe.optimiser.warmup, 1.0, 0.001)
        for group in self.optimiser.param_groups:
            trained = group["phase"] == int(second)
            group["lr"] = factor * group["rate"] if trained else 0.0
            for parameter in group["params"]:
                parameter.requires_grad_(trained)

    def losses(self) -> dict[str, torch.Tensor]:
        """Computes the losses of the phase that the step belongs to."""
        augment = Augmentation(self.recipe.seed * 1_000_003 + self.step)
        return self._sketch_losses(augment) if self.step < self.recipe.sketch_steps else self._pair_losses(augment)

    def _sketch_losses(self, augment: Augmentation) -> dict[str, torch.Tensor]:
        """Two losses of some classes' sketches, one sketch of each.

        classes: the cross entropy of their cosines to all classes, where a class lies at the mean of its photos, or at
        a point of its own. contrast: the cross entropy of their cosines to one photo of each class in the batch.
        """
        recipe, side, generator = self.recipe, self.network, augment.generator
        classes = torch.randperm(len(self.rows), generator=generator)[: recipe.classes]
        ret = F.normalize(self._sketches(classes, augment).ret, dim=1)
        scale = side.log_scale.exp().clamp(max=_MOST_SCALE)
        all_classes = torch.cat([self.means, F.normalize(side.points, dim=1)])
        losses = {"classes": F.cross_entropy(scale * ret @ all_classes.T, classes)}
        shown = classes < len(self.means)
        if recipe.contrast and int(shown.sum()) > 1:
            photos = one_of_each(self.data.photo_rows, classes[shown], generator)
            cosines = ret[shown] @ F.normalize(self.photos.ret[photos], dim=1).T
            losses["contrast"] = recipe.contrast * F.cross_entropy(scale * cosines, torch.arange(len(photos)))
        return losses

    def _pair_losses(self, augment: Augmentation) -> dict[str, torch.Tensor]:
        """The list-wise loss of all pairs of some classes' sketches and photos, half of them classes that look alike.

        Half of the sketches that were drawn from a photo have that one, so that instances are learned, too.
        """
        recipe, generator = self.recipe, augment.generator
        first = int(torch.randint(len(self.means), (1,), generator=generator))
        near = (self.means @ self.means[first]).topk(min(recipe.pair_classes // 2, len(self.means))).indices
        others = [c for c in torch.randperm(len(self.means), generator=generator).tolist() if c not in near.tolist()]
        classes = torch.cat([near, torch.tensor(others[: recipe.pair_classes - len(near)], dtype=torch.int64)])
        sketches = one_of_each(self.rows, classes, generator)
        photos = one_of_each(self.data.photo_rows, classes, generator)
        own = self.data.drawn_from[sketches]
        take = (own >= 0) & (torch.rand(len(own), generator=generator) < 0.5)
        photos = torch.where(take, own, photos)
        network = self.base
        tokens = self._encoded(sketches, augment)
        sketch_side, photo_side = network.project(tokens, "sketch"), network.project(self.photos[photos], "photo")
        logits = torch.stack(
            [network.relate(sketch_side.rows(slice(row, row + 1)), photo_side) for row in range(len(classes))]
        )
        return {"pairs": listwise_loss(logits)}

    def _sketches(self, classes: torch.Tensor, augment: Augmentation) -> Tokens:
        """The tokens of one sketch of each of these classes, varied."""
        return self._encoded(one_of_each(self.rows, classes, augment.generator), augment)

    def _encoded(self, sketches: torch.Tensor, augment: Augmentation) -> Tokens:
        ink = augment.sketches(1 - self.data.sketches[sketches].float() / 255)
        return self.base.encode(sized(1 - ink, self.base.config).to(self.device), "sketch")

    def _encoded_photos(self) -> Tokens:
        """The tokens of all training photos, which are encoded once and kept in the folder."""
        network, data = self.base, self.data
        origin = digest(data.key + network.config.photo_side, {})
        look = Preprocessing(network.config.image_size, network.config.mean, network.config.std)

        def encode() -> dict[str, torch.Tensor]:
            with torch.inference_mode():
                parts = [
                    network.encode(normalised(data.photos[start : start + _PHOTOS], look).to(self.device), "photo").to(
                        "cpu"
                    )
                    for start in range(0, len(data.photos), _PHOTOS)
                ]
            found = Tokens.cat(parts)
            return {"features": found.features.half(), "positions": found.positions}

        kept = kept_tensors(self.folder / f"photos-{origin[:16]}.safetensors", encode)
        return Tokens(kept["features"].float(), kept["positions"]).to(self.device)

    def _begin(self) -> None:
        """Takes the mean direction of sketches off, and puts the points of classes without photos where theirs lie."""
        augment = Augmentation(self.recipe.seed)
        with torch.inference_mode():
            rets = [
                self._sketches(torch.full((_FIRST_SKETCHES,), number), augment).ret for number in range(len(self.rows))
            ]
            mean = F.normalize(torch.cat(rets), dim=1).mean(dim=0)
            first = len(self.means)
            points = torch.stack([found.mean(dim=0) for found in rets[first:]]) if rets[first:] else None
        for side in (self.network, self.average):
            if not bool(side.head.centre.any()):
                side.head.centre.data.copy_(mean)
            if points is not None:
                side.points.data.copy_(points - mean)


def train_two_sided(recipe: TwoSidedRecipe, run: Run, report: Callable[[str], object]) -> bool:
    """Trains a two-sided network, calibrates it on the validation classes, and writes the checkpoint.

    ``run.backbone`` is the file of the photo side. Without ``run.start`` the sketch side begins as the photo side is.
    A recipe that trains on the validation classes keeps the calibration of ``run.start``, and the weights of its
    prior. ``report`` as for ``run_steps``.
    """
    photo_side = Path(run.backbone)
    network = load_zse_network(run.start) if run.start else new_network(recipe, photo_side)
    if network.config.photo_side != file_sha256(photo_side):
        raise ModelError(f"{run.start} was trained against another photo side than {photo_side}; name that one")
    start = network if run.start else None
    pictures = training_corpora(run.data, recipe)
    training, validation, further = pictures.training, pictures.validation, pictures.further
    if validation is None and start is None:
        raise ModelError("a recipe that trains on the validation classes needs --start, whose calibration it keeps")
    report(
        f"training on {counts(training)} and {len(further.sketches):,} sketches without photos, "
        f"{recipe.pictures:,} of them in all steps"
    )
    data = training_set(training, cache_folder() / "pixels", further)
    plain = network.without_prior().without_vocabulary()
    trainer = TwoSidedTrainer(recipe, data, plain, run.folder)
    if not run_steps(trainer, run, validation, report):
        return False
    trained, notes = trainer.trained, {"origin": run.origin}
    if run.data is not None and start is not None:
        # The pictures that its prior and its vocabulary were made of are not among these.
        trained = trained.prior_replaced(start.prior)
    if validation:
        chosen_on = subsampled(validation, recipe.choose_share, recipe.choose_share)
        harmonic: dict[str, float] = {}
        large = large_validation(recipe) if run.data is None else None
        if large is not None:
            trained, harmonic = with_chosen_prior(trained, training, further, large, recipe.methods, recipe.dtype)
        trained, figures = calibrated(trained, chosen_on, recipe.dtype, recipe.methods)
        notes["validation"] = json.dumps(figures | harmonic)
    elif start is not None:
        if start.prior is not None and run.data is None:
            weights = float(start.prior.ret_weight), float(start.prior.relation_weight)
            trained = with_prior(trained, training, further, *weights)
        trained = trained.with_calibration(start.calibration)
    if run.data is not None and start is not None:
        trained = trained.vocabulary_replaced(start.vocabulary, start.config.words)
    save_checkpoint(trained.half(), run.target, notes)
    keep_photo_side(photo_side, run.target)
    report(f"wrote {run.target}; its words are made by sketch-search model words")
    return True


def new_network(recipe: TwoSidedRecipe, photo_side: Path) -> Network:
    """A network on a photo side, whose sketch side is that of photos; cross-attention and relation network are random.

    [Ret] of sketches begins where a linear map from class token and mean patch comes nearest to that of photos.
    """
    state = photo_side_state(photo_side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = Network(recipe.config(file_sha256(photo_side)))
    own = network.state_dict() | state
    for name, value in state.items():
        if ".tuning." in name and "second" not in name:
            own[name.replace("photo_side.", "")] = value
    own["encoder.head.tokens.weight"] = state["encoder.photo_side.head.tokens.weight"]
    own["encoder.head.tokens.bias"] = state["encoder.photo_side.head.tokens.bias"]
    own["encoder.head.ret.weight"] = state["encoder.photo_side.head.from_first.weight"]
    network.load_state_dict(own)
    return network
