"""Training of a two-sided network: its sketch side, and what compares pairs, against photos that do not change.

Photos are encoded once. Sketches learn to lie where photos of their class do; their patch tokens, cross-attention and
relation network learn which photo of a batch each sketch fits. Cross-attention begins as the identity: best matches of
tokens that nobody trained find more than [Ret] does, and random weights would destroy that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from model.checkpoint import file_sha256, keep_photo_side, load_zse_network, photo_side_state, save_checkpoint
from model.datasets import cache_folder, normalised, rows_by_class, rows_by_label, subsampled
from model.errors import ModelError
from model.evaluation import counts
from model.images import Preprocessing
from model.network import Network, Tokens, TwoSidedEncoder
from model.papers.pictures import (
    Augmentation,
    TrainingSet,
    balanced,
    kept_tensors,
    one_of_each,
    sized,
    training_corpora,
    training_set,
)
from model.papers.recipe import TwoSidedRecipe
from model.papers.runs import Run, Trainer, run_steps
from model.papers.word_vectors import WordVectors, class_rows, class_vectors, read_word_vectors
from model.papers.zse.prior import with_chosen_prior, with_prior
from model.papers.zse.trainer import large_validation, listwise_loss
from model.training import calibrated, digest, warmed_cosine

# Photos encoded at once.
_PHOTOS = 16
# The largest factor of cosines: without a bound it grows for as long as sketches can be told apart.
_MOST_SCALE = 60.0
# Of the regression from words to photos, chosen by how well it places words of classes that it was not fitted on.
_RIDGE = 0.2
# Sketches of each class that give the first point of a class without photos.
_FIRST_SKETCHES = 3


@dataclass(frozen=True)
class ClassWords:
    """The words by which a class that no photo shows finds its place among photos.

    Attributes:
        words: their vectors.
        classes: the names of all classes of a training, those with photos first.
        photos: the name of what each photo shows, classes without sketches included.
    """

    words: WordVectors
    classes: tuple[str, ...]
    photos: tuple[str, ...]

    def points(self, ret: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predicts where photos of each class lie, by the ridge regression from words to the means of photos.

        ret: (m, d), [Ret] of each photo. Returns (c, d) points of length 1, and (c,) bool: False, and a point of
        zeros, where the word vectors lack the class.
        """
        shown = rows_by_label(self.photos)
        rows = class_rows(self.words, [*shown, *self.classes], {}, lacking=True)
        fitted = [name for name in shown if rows[name]]
        x = class_vectors(self.words, {name: rows[name] for name in fitted})
        y = F.normalize(torch.stack([F.normalize(ret[shown[name]], dim=1).mean(dim=0) for name in fitted]), dim=1)
        x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
        x = x - x_mean
        weights = torch.linalg.solve(x @ x.T + _RIDGE * torch.eye(len(x)), y - y_mean)
        known = torch.tensor([bool(rows[name]) for name in self.classes])
        points = torch.zeros(len(self.classes), ret.shape[1])
        asked = class_vectors(self.words, {name: rows[name] for name in self.classes if rows[name]})
        points[known] = F.normalize((asked - x_mean) @ x.T @ weights + y_mean, dim=1)
        return points, known


class SketchSide(nn.Module):
    """All of the network but its photo side is trained, and points for classes that have no photos.

    Attributes:
        points: (k, d), where sketches of the k classes without photos are to lie.
        log_scale: the logarithm of what the cosines of [Ret] are multiplied by.
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


class TwoSidedTrainer(Trainer[SketchSide]):
    """A training of the sketch side.

    Args:
        recipe: how to train.
        data: the training pictures.
        network: a new or trained network; its photo side stays as it is.
        folder: of the training's state, as for ``Loop``; the photos' tokens are kept there, too.
        words: of its classes; None where classes without photos have to find their places by themselves.
    """

    recipe: TwoSidedRecipe

    def __init__(
        self, recipe: TwoSidedRecipe, data: TrainingSet, network: Network, folder: Path, words: ClassWords | None = None
    ) -> None:
        self.recipe, self.data, self.base = recipe, data, network
        network.requires_grad_(False).set_precision(recipe.dtype)
        if network.cross is not None:
            network.cross.float()
        # Each data set has an equal part in a class, however many sketches it has.
        self.rows = tuple(balanced(rows, data.sources) for rows in (*data.sketch_rows, *data.further_rows))
        side = SketchSide(network, len(data.further_rows), recipe.temperature).requires_grad_(True)
        state = {name: value for name, value in network.state_dict().items() if "photo_side" not in name}
        super().__init__(recipe, side, folder, digest(repr(recipe) + data.key + network.config.photo_side, state))
        self.photos = self._encoded_photos()
        rets = F.normalize(self.photos.ret, dim=1)
        self.means = F.normalize(torch.stack([rets[rows].mean(dim=0) for rows in data.photo_rows]), dim=1)
        self.places, self.placed = self._places(words)
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
        for key in average.tuning.state_dict():
            photos, name = state[f"encoder.photo_side.tuning.{key}"], f"encoder.tuning.{key}"
            state[name] = photos + self.recipe.kept * (state[name] - photos)
        other = Network(network.config, network.calibration)
        other.load_state_dict({name: value.float() for name, value in state.items()})
        return other.requires_grad_(False).eval()

    def make_optimiser(self) -> torch.optim.AdamW:
        """AdamW with a rate for each kind of parameter."""
        chosen, side = self.recipe.optimiser, self.network
        pairs = [side.head.tokens, side.cross, side.relation, side.ret_term]
        return torch.optim.AdamW(
            [
                {"params": [*side.tuning.parameters(), side.log_scale], "rate": chosen.tuning_rate},
                {"params": [side.head.ret.weight, side.head.centre], "rate": chosen.head_rate},
                {"params": [side.points], "rate": chosen.point_rate},
                {"params": [p for module in pairs for p in module.parameters()], "rate": chosen.pair_rate},
            ],
            weight_decay=0.0,
            betas=(0.9, 0.99),
        )

    def prepare(self) -> None:
        """Sets the learning rates of the step that comes next."""
        recipe = self.recipe
        factor = warmed_cosine(self.step, recipe.steps, recipe.optimiser.warmup, 1.0, 0.001)
        for group in self.optimiser.param_groups:
            group["lr"] = factor * group["rate"]

    def losses(self) -> dict[str, torch.Tensor]:
        """Three losses of some classes' sketches, one sketch of each.

        classes: the cross entropy of their cosines to all classes. A class lies at the mean of its photos; without any,
        where its word says; without a word, at a point that is learned. contrast: the cross entropy of their cosines
        to one photo of each class in the batch. pairs: the list-wise loss of the relation logits of all pairs of
        sketches and such photos. Half of the sketches that were drawn from a photo meet that one, so that instances are
        learned, too.
        """
        augment = Augmentation(self.recipe.seed * 1_000_003 + self.step)
        recipe, side, generator = self.recipe, self.network, augment.generator
        classes = torch.randperm(len(self.rows), generator=generator)[: recipe.classes]
        # Classes with photos come first, so that the pairs are those of the first rows.
        classes = classes[(classes >= len(self.means)).int().argsort(stable=True)]
        sketches = one_of_each(self.rows, classes, generator)
        tokens = self._encoded(sketches, augment)
        ret = F.normalize(tokens.ret, dim=1)
        scale = side.log_scale.exp().clamp(max=_MOST_SCALE)
        places = torch.where(self.placed[:, None], self.places, self._padded(F.normalize(side.points, dim=1)))
        losses = {"classes": F.cross_entropy(scale * ret @ places.T, classes)}
        shown = int((classes < len(self.means)).sum())
        if shown > 1:
            photos = one_of_each(self.data.photo_rows, classes[:shown], generator)
            own = self.data.drawn_from[sketches[:shown]]
            photos = torch.where((own >= 0) & (torch.rand(shown, generator=generator) < 0.5), own, photos)
            cosines = ret[:shown] @ F.normalize(self.photos.ret[photos], dim=1).T
            losses["contrast"] = recipe.contrast * F.cross_entropy(scale * cosines, torch.arange(shown))
            few, network = min(shown, recipe.pair_classes), self.base
            sketch_side = network.project(tokens[:few], "sketch")
            photo_side = network.project(self.photos[photos[:few]], "photo")
            rows = [sketch_side.rows(slice(row, row + 1)) for row in range(len(sketch_side))]
            logits = torch.stack([network.relate(row, photo_side) for row in rows])
            losses["pairs"] = recipe.pairs * listwise_loss(logits)
        return losses

    def _places(self, words: ClassWords | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(c, d), where photos of each class lie, and (c,) bool, whether that is known."""
        places, known = self._padded(torch.zeros_like(self.network.points)), torch.zeros(len(self.rows)).bool()
        if words is not None and len(self.network.points):
            places, known = words.points(self.photos.ret.cpu())
        places[: len(self.means)], known[: len(self.means)] = self.means.cpu(), True
        return places.to(self.device), known.to(self.device)

    def _padded(self, points: torch.Tensor) -> torch.Tensor:
        """The rows of all classes from those of classes without photos."""
        return torch.cat([torch.zeros_like(self.means), points])

    def _encoded(self, sketches: torch.Tensor, augment: Augmentation) -> Tokens:
        """The tokens of these sketches, varied."""
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
        """Takes the means of sketches off, unless an earlier training did, and puts points where their sketches lie."""
        augment, first = Augmentation(self.recipe.seed), len(self.means)
        centred = bool(self.network.head.centre.any())
        tokens: dict[int, Tokens] = {}
        with torch.inference_mode():
            for number in range(len(self.rows)):
                if not centred or not self.placed[number]:
                    labels = torch.full((_FIRST_SKETCHES,), number)
                    tokens[number] = self._encoded(one_of_each(self.rows, labels, augment.generator), augment)
        mean = torch.zeros_like(self.network.head.centre)
        if not centred:
            mean = F.normalize(torch.cat([found.ret for found in tokens.values()]), dim=1).mean(dim=0)
            mean_patch = torch.cat([found.patches.flatten(0, 1) for found in tokens.values()]).mean(dim=0)
        for side in (self.network, self.average):
            if not centred:
                side.head.centre.data.copy_(mean)
                side.head.tokens.bias.data.sub_(mean_patch)
            for number, found in tokens.items():
                if number >= first:
                    side.points.data[number - first] = found.ret.mean(dim=0) - mean


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
    if recipe.anew:
        network = new_network(recipe, photo_side)
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
    words = None
    if run.data is None and further.sketches:
        names = (*training.labels, *rows_by_class(further.sketches))
        shown = tuple(class_name(photo.label) for photo in (*training.photos, *further.photos))
        words = ClassWords(read_word_vectors(run.words), names, shown)
    trainer = TwoSidedTrainer(recipe, data, plain, run.folder, words)
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


def class_name(label: str) -> str:
    """Returns the name of a class of ImageNet without its number, as in "401_accordion"; any other name as it is."""
    number, _, name = label.partition("_")
    return name if number.isdigit() else label


def new_network(recipe: TwoSidedRecipe, photo_side: Path) -> Network:
    """A network on a photo side, whose sketch side is that of photos, and whose pairs are compared by best matches.

    [Ret] of sketches begins where a linear map from class token and mean patch comes nearest to that of photos.
    """
    # Imported here, as elsewhere: timm takes a second to load.
    from timm.layers.pos_embed import resample_abs_pos_embed

    state = photo_side_state(photo_side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = Network(recipe.config(file_sha256(photo_side)))
    own = network.state_dict() | state
    for name, value in state.items():
        if ".tuning." in name and "second" not in name:
            own[name.replace("photo_side.", "")] = value
    position, side = state["encoder.photo_side.vit.position"][None], network.config.sketch_grid
    own["encoder.position"] = resample_abs_pos_embed(position, [side, side])[0]
    own["encoder.head.tokens.weight"] = state["encoder.photo_side.head.tokens.weight"]
    own["encoder.head.tokens.bias"] = state["encoder.photo_side.head.tokens.bias"]
    # The photos' projection evens the spreads of its axes out halfway; tokens are compared as they were before.
    spread = state["encoder.photo_side.head.tokens.weight"].norm(dim=1).reciprocal()
    for branch in ("sketch", "photo"):
        own[f"cross.{branch}.norm2.weight"] = spread / spread.mean()
        for name in ("out.weight", "out.bias", "ffn.3.weight", "ffn.3.bias"):
            own[f"cross.{branch}.{name}"] = torch.zeros_like(own[f"cross.{branch}.{name}"])
    for name in ("sketch_worth", "photo_worth"):
        own[f"relation.{name}.weight"] = torch.zeros_like(own[f"relation.{name}.weight"])
    own["encoder.head.ret.weight"] = state["encoder.photo_side.head.from_first.weight"]
    network.load_state_dict(own)
    return network
