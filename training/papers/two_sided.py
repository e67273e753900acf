"""Trains the sketch side and the pairs against photos encoded once, and makes and weighs the prior of the network.

Cross-attention begins as the identity.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from sketch_search.model.engine import TWO_SIDED, Method, Prior, TwoSidedConfig, file_sha256, find_photo_side, unit
from sketch_search.model.errors import ModelError
from sketch_search.model.torch import Network, Tokens, TwoSidedEncoder
from sketch_search.model.torch.checkpoint import keep_photo_side, load_zse_network, read_photo_side, save_checkpoint
from sketch_search.training.corpus import IMAGENET_PART, Corpus, rows_by_label
from sketch_search.training.evaluation import scoring
from sketch_search.training.evaluation.figures import HARMONIC, measure
from sketch_search.training.papers import pictures
from sketch_search.training.papers.recipe import Count, Optimiser, Positive, Recipe, Several, Share
from sketch_search.training.papers.trainer import CPU, Run, Trainer, check_validation, digest, run_steps
from sketch_search.training.tasks import TRAINED, UNSEEN, Task, read_task, some_of_each

# The number of photos that are encoded at once.
_PHOTOS = 16
# The largest factor of cosines: without a bound it grows for as long as sketches can be told apart.
_MOST_SCALE = 60.0
# The ridge of the regression from words to photos, chosen by how well it places words of classes outside its fit.
_RIDGE = 0.2
# Sketches of each class that give the first point of a class without photos, and the learning rate of such points.
_FIRST_SKETCHES, _POINT_RATE = 3, 1e-2
# The cosines are divided by it at the beginning; it is learned.
_TEMPERATURE = 0.07
# Weight of the contrast of sketches with photos of the batch, beside that with all classes.
_CONTRAST = 0.5
# Of a step's classes at most so many that have photos are compared pair by pair.
_PAIR_CLASSES = 32
# Photos of one class are told apart if sketches were drawn from at least so many of them.
_FEWEST_INSTANCES = 8
# The clusters of training sketches that make the prior (``model.engine.Prior``), of so many sketches of each class.
PROTOTYPES, SKETCHES_PER_CLASS = 256, 10
# The number of training photos from which the level is computed.
LEVEL_PHOTOS = 500
# Weights of the prior that are tried.
RET_WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0)
RELATION_WEIGHTS = (0.0, 5.0, 10.0, 15.0, 20.0, 30.0)
# The prior's weight in relation scores is chosen on every n-th query only, because pairs are slow.
RELATION_EVERY = 4
# The precision@10 that trained classes may lose.
MOST_LOSS = 0.02
_FIGURE = "precision_10"


@dataclass(frozen=True, kw_only=True)
class TwoSidedOptimiser(Optimiser):
    """AdamW."""

    tuning_rate: float = 1.5e-3  # of norms, biases and scales
    head_rate: float = 1e-3  # of the projection of sketches
    pair_rate: float = 3e-4  # of the projection of tokens, cross-attention and relation network
    warmup: Count = 10
    last: Share = 0.001
    clip: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TwoSidedRecipe(Recipe):
    """A training of the sketch side of a two-sided network, and of what compares pairs.

    classes: of each step, a sketch of each.
    drawings: the share of these classes that has line drawings alone.
    kept: in (0, 1], how much of the way from the photos' norms, biases and scales to the trained ones is gone in the
        end; less finds more of what the training did not show.
    kept_tokens: the same of the way from the photos' projection of tokens to that of sketches.
    instance_classes, instances: in so many classes of each step, up to so many photos are told apart, each by a sketch
        that was drawn from it; 0 classes for none.
    instance_weight: of their loss by relation logits. The loss by [Ret] counts half as much.
    anew: whether to begin from the photo side although a start is given; only the calibration of that one, and the
        weights of its prior, are taken.
    evaluate_everything: n chooses a prior by every n-th query of the protocol "everything"; 0 makes no prior.
    """

    method: ClassVar[str | None] = "two-sided"
    title: ClassVar[str] = "the default network"
    fixed: ClassVar[tuple[str, ...]] = ("mean", "std", "image_size", "photo_side")
    further: ClassVar[bool] = True

    steps: Count = 140
    classes: Several = 64
    drawings: Share = 0.15
    kept: Positive = 1.0
    kept_tokens: Positive = 1.0
    instance_classes: int = 0
    instances: Several = 16
    instance_weight: Positive = 2.0
    anew: bool = False
    optimiser: TwoSidedOptimiser = TwoSidedOptimiser()
    evaluate_everything: int = 0

    @property
    def methods(self) -> tuple[Method, ...]:
        return ("rn", "ret")

    @property
    def pictures(self) -> int:
        """Sketches alone: photos are encoded once, before the first step."""
        return self.classes

    def config(self, photo_side: str, fields: Mapping[str, Any] | None = None) -> TwoSidedConfig:
        """Makes the configuration on a photo side; fields: where it differs from TWO_SIDED. Raises ModelError."""
        values = dataclasses.asdict(TWO_SIDED) | dict(fields or {}) | {"photo_side": photo_side}
        return self.configure(TwoSidedConfig, **values)

    def check(self) -> None:
        super().check()
        self.config("unknown")


def class_places(
    classes: Sequence[str], shown: Sequence[str], ret: torch.Tensor, vectors: pictures.WordVectors | None
) -> torch.Tensor:
    """Computes each class's place, (c, d) of length 1: the mean of its photos, or a ridge regression from words,

    averaged with the ImageNet class of this name; zeros if unknown. shown: labels; ret: (m, d), of the photos.
    """
    places, directions = torch.zeros(len(classes), ret.shape[1]), F.normalize(ret, dim=1)

    def mean(rows: list[int]) -> torch.Tensor:
        return F.normalize(directions[rows].mean(dim=0), dim=0)

    # A class of ImageNet has its number before its name: 401_accordion.
    photos = rows_by_label(re.sub(r"^\d+_", "", label) for label in shown)
    if vectors is not None:
        rows = pictures.class_rows(vectors, [*photos, *classes], {}, lacking=True)
        fitted = {name: rows[name] for name in photos if rows[name]}
        x, y = pictures.class_vectors(vectors, fitted), torch.stack([mean(photos[name]) for name in fitted])
        x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
        x = x - x_mean
        weights = torch.linalg.solve(x @ x.T + _RIDGE * torch.eye(len(x)), y - y_mean)
        of_classes = pictures.class_vectors(vectors, {name: rows[name] for name in classes if rows[name]})
        known = torch.tensor([bool(rows[name]) for name in classes])
        places[known] = F.normalize((of_classes - x_mean) @ x.T @ weights + y_mean, dim=1)
    rows_of = rows_by_label(shown)
    for number, name in enumerate(classes):
        if name in rows_of:
            places[number] = mean(rows_of[name])
        elif name in photos:
            places[number] = F.normalize(places[number] + mean(photos[name]), dim=0)
    return places


class SketchSide(nn.Module):
    """The parts that are trained: the sketch side, points (k, d) of classes without photos, factor of cosines."""

    def __init__(self, network: Network, points: int) -> None:
        super().__init__()
        encoder = network.encoder
        assert isinstance(encoder, TwoSidedEncoder)
        assert network.ret_term is not None
        self.tuning, self.head = encoder.tuning, encoder.head
        self.cross, self.relation, self.ret_term = network.cross, network.relation, network.ret_term
        self.points = nn.Parameter(torch.zeros(points, network.config.width))
        self.log_scale = nn.Parameter(torch.tensor(-math.log(_TEMPERATURE)))


class TwoSidedTrainer(Trainer[SketchSide]):
    """A training of the sketch side. vectors: None if the places of classes without photos are learned."""

    recipe: TwoSidedRecipe

    def __init__(
        self,
        recipe: TwoSidedRecipe,
        data: pictures.TrainingSet,
        network: Network,
        folder: Path,
        vectors: pictures.WordVectors | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.recipe, self.data, self.base, self.device = recipe, data, network, device
        network.requires_grad_(False).set_precision(recipe.dtype_on(device))
        network.cross.float()
        state = {name: value for name, value in network.state_dict().items() if "photo_side" not in name}
        origin = digest(recipe.identity + data.key + network.config.photo_side, state)
        network.to(device)
        side = SketchSide(network, len(data.further_rows)).requires_grad_(True)
        # Each data set has an equal part in a class, however many sketches it has.
        self.rows = tuple(pictures.balance(rows, data.sources) for rows in (*data.sketch_rows, *data.further_rows))
        # Of classes in which enough photos were drawn: these photos, each with the rows of its sketches.
        drawn = [pictures.find_pairs(data.drawn_from, rows) for rows in data.photo_rows if recipe.instance_classes]
        self.drawn = [pairs for pairs in drawn if len(pairs) >= _FEWEST_INSTANCES]
        photos = self._encode_photos(folder)
        # Classes with photos come first.
        self.with_photos = len(data.photo_rows)
        places = class_places(data.classes, data.shown, photos.ret, vectors)
        self.photos = Tokens(photos.features.to(device), photos.positions.to(device))
        self.places, self.placed = places.to(device), places.any(dim=1).to(device)
        super().__init__(recipe, side, folder, origin, device)

    @property
    def trained(self) -> Network:
        """The network as it would be saved now: the average over steps."""
        average, network = self.average, self.base
        state = network.state_dict()
        for name, value in average.state_dict().items():
            state |= {key: value for key in (name, f"encoder.{name}") if key in state}
        kept = {f"tuning.{key}": self.recipe.kept for key in average.tuning.state_dict()}
        for key, share in (kept | {"head.tokens.weight": self.recipe.kept_tokens}).items():
            photos, name = state[f"encoder.photo_side.{key}"], f"encoder.{key}"
            state[name] = photos + share * (state[name] - photos)
        other = Network(network.config, network.calibration)
        other.load_state_dict({name: value.float() for name, value in state.items()})
        # Regions are the photo side's, which no training changes.
        other.projection = network.projection
        return other.requires_grad_(False).eval()

    def make_optimiser(self) -> torch.optim.AdamW:
        chosen, side = self.recipe.optimiser, self.network
        pairs = [side.head.tokens, side.cross, side.relation, side.ret_term]
        return torch.optim.AdamW(
            [
                {"params": [*side.tuning.parameters(), side.log_scale], "rate": chosen.tuning_rate},
                {"params": [side.head.ret.weight, side.head.centre], "rate": chosen.head_rate},
                {"params": [side.points], "rate": _POINT_RATE},
                {"params": [p for module in pairs for p in module.parameters()], "rate": chosen.pair_rate},
            ],
            weight_decay=0.0,
            betas=(0.9, 0.99),
        )

    def losses(self) -> dict[str, torch.Tensor]:
        """Computes three losses of some classes' sketches, one sketch of each, and two within classes.

        classes: the cross entropy of their cosines to the places of all classes. contrast: to one photo of each class
        in the batch. pairs: the list-wise loss of the relation logits of all pairs. Half of the sketches that were
        drawn from a photo meet this photo. instances, instances_ret: see ``_within``.
        """
        augment = pictures.Augmentation(self.step_seed)
        side, generator = self.network, augment.generator
        # A share of the classes has line drawings alone.
        order, recipe = torch.randperm(len(self.rows), generator=generator), self.recipe
        lines = self.data.lines_alone[order]
        few = min(round(recipe.drawings * recipe.classes), int(lines.sum()))
        classes = torch.cat([order[~lines][: recipe.classes - few], order[lines][:few]])
        # Classes with photos come first, so that the pairs are in the first rows.
        classes = classes[(classes >= self.with_photos).int().argsort(stable=True)]
        sketches = pictures.draw_of_each(self.rows, classes, generator)
        tokens = self._encode(sketches, augment)
        ret = F.normalize(tokens.ret, dim=1)
        scale = side.log_scale.exp().clamp(max=_MOST_SCALE)
        points = torch.cat([self.places[: self.with_photos], F.normalize(side.points, dim=1)])
        places = torch.where(self.placed[:, None], self.places, points)
        losses = {"classes": F.cross_entropy(scale * ret @ places.T, classes.to(self.device))}
        shown = int((classes < self.with_photos).sum())
        if shown > 1:
            photos = pictures.draw_of_each(self.data.photo_rows, classes[:shown], generator)
            originals = self.data.drawn_from[sketches[:shown]]
            photos = torch.where((originals >= 0) & (torch.rand(shown, generator=generator) < 0.5), originals, photos)
            cosines = ret[:shown] @ F.normalize(self.photos.ret[photos], dim=1).T
            losses["contrast"] = _CONTRAST * F.cross_entropy(scale * cosines, torch.arange(shown, device=self.device))
            few, network = min(shown, _PAIR_CLASSES), self.base
            losses["pairs"] = listwise_loss(pair_logits(network, tokens[:few], self.photos[photos[:few]]))
        return losses | self._within(augment, scale)

    def _within(self, augment: pictures.Augmentation, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        """Computes list-wise losses within classes: by relation logits, and by cosines, which count half."""
        recipe, generator, network = self.recipe, augment.generator, self.base
        chosen = torch.randperm(len(self.drawn), generator=generator)[: recipe.instance_classes].tolist()
        if not chosen:
            return {}
        groups = []
        for pairs in (self.drawn[number] for number in chosen):
            few = [pairs[at] for at in torch.randperm(len(pairs), generator=generator)[: recipe.instances]]
            photos = torch.tensor([photo for photo, _ in few])
            groups.append((photos, torch.cat([pictures.draw_some(sketches, 1, generator) for _, sketches in few])))
        tokens = self._encode(torch.cat([sketches for _, sketches in groups]), augment, posed=True)
        by_relation, by_ret, first = [], [], 0
        for photos, sketches in groups:
            of_class, shown = tokens[first : first + len(sketches)], self.photos[photos]
            first += len(sketches)
            by_relation.append(listwise_loss(pair_logits(network, of_class, shown)))
            cosines = F.normalize(of_class.ret, dim=1) @ F.normalize(shown.ret, dim=1).T
            by_ret.append(listwise_loss(scale * cosines))
        weight = recipe.instance_weight
        losses = torch.stack(by_relation).mean(), torch.stack(by_ret).mean()
        return {"instances": weight * losses[0], "instances_ret": weight / 2 * losses[1]}

    def _encode(self, sketches: torch.Tensor, augment: pictures.Augmentation, *, posed: bool = False) -> Tokens:
        ink = augment.sketches(1 - self.data.sketches[sketches].float() / 255, posed=posed)
        return self.base.encode(pictures.normalize(1 - ink, self.base.config).to(self.device), "sketch")

    def _encode_photos(self, folder: Path) -> Tokens:
        """Encodes all training photos once, and keeps their tokens in the folder."""
        network, data = self.base, self.data
        origin = digest(data.photos_key + network.config.photo_side, {})

        @torch.inference_mode()
        def encode() -> dict[str, torch.Tensor]:
            parts = torch.split(data.photos, _PHOTOS)
            batches = (pictures.normalize(part, network.config).to(self.device) for part in parts)
            tokens_of = [network.encode(images, "photo") for images in batches]
            features, positions = (torch.cat([vars(t)[n] for t in tokens_of]).cpu() for n in ("features", "positions"))
            return {"features": features.half(), "positions": positions}

        kept = pictures.keep_tensors(folder / f"photos-{origin[:16]}.safetensors", encode)
        return Tokens(kept["features"].float(), kept["positions"])

    def begin(self) -> None:
        """Subtracts the means of sketches, unless an earlier training did, and puts points at their sketches."""
        augment, first = pictures.Augmentation(self.recipe.seed), self.with_photos
        centred = bool(self.network.head.centre.any())
        tokens: dict[int, Tokens] = {}
        with torch.inference_mode():
            for number in range(len(self.rows)):
                if not centred or not self.placed[number]:
                    labels = torch.full((_FIRST_SKETCHES,), number)
                    tokens[number] = self._encode(pictures.draw_of_each(self.rows, labels, augment.generator), augment)
        mean = torch.zeros_like(self.network.head.centre)
        if not centred:
            mean = F.normalize(torch.cat([of_class.ret for of_class in tokens.values()]), dim=1).mean(dim=0)
            mean_patch = torch.cat([of_class.patches.flatten(0, 1) for of_class in tokens.values()]).mean(dim=0)
        for side in (self.network, self.average):
            if not centred:
                side.head.centre.data.copy_(mean)
                side.head.tokens.bias.data.sub_(mean_patch)
            for number, of_class in tokens.items():
                if number >= first:
                    side.points.data[number - first] = of_class.ret.mean(dim=0) - mean


def train_two_sided(recipe: TwoSidedRecipe, run: Run) -> None:
    """Trains, calibrates and writes a two-sided network; one trained on "val" keeps its start's calibration."""
    start = load_zse_network(run.start) if run.start else None
    if run.start and start and run.backbone is None:
        if not isinstance(start.config, TwoSidedConfig):
            raise ModelError(f"{run.start} is not two-sided: continue it by the recipe that it was trained by")
        photo_side = find_photo_side(start.config.photo_side, run.start)
    else:
        photo_side = Path(run.needed_backbone)
    if start and start.config.photo_side != file_sha256(photo_side):
        raise ModelError(f"{run.start} was trained against another photo side than {photo_side}; name that one")
    network = new_network(recipe, photo_side) if start is None or recipe.anew else start
    corpora = pictures.training_corpora(run.data, recipe)
    training, validation, further = corpora.training, corpora.validation, corpora.further
    if validation is None and start is None:
        raise ModelError("a recipe that trains on the validation classes needs --start, whose calibration it keeps")
    check_validation(recipe, run, validation)
    more = f" and {len(further.sketches):,} sketches without photos" if further.sketches else ""
    print(f"training on {scoring.counts(training)}{more}")
    vectors = pictures.read_word_vectors(run.words) if run.data is None and further.sketches else None
    data = pictures.training_set(training, further)
    plain = network.prior_replaced(None).vocabulary_replaced(None)
    trainer = TwoSidedTrainer(recipe, data, plain, run.folder, vectors, run.device)
    if not run_steps(trainer, run, validation):
        return
    trained, notes = trainer.trained, trainer.notes(run, corpora.seen)
    if recipe.kept_tokens < 1:
        # Tokens of some sketches of every class get the mean 0.
        chosen = some_of_each(training.sketches + further.sketches, SKETCHES_PER_CLASS)
        patches = scoring.encode_pictures(scoring.ret_matcher(trained), chosen, "sketch").patches
        assert isinstance(trained.encoder, TwoSidedEncoder)
        trained.encoder.head.tokens.bias.sub_(torch.from_numpy(patches.mean(axis=(0, 1))))
    if run.data is not None and start is not None:
        # The start keeps its prior, because the pictures of its prior and its vocabulary are not among these.
        trained = trained.prior_replaced(start.prior)
    if validation is not None:
        chosen_on, harmonic = validation.subsample(recipe.choose_share, recipe.choose_share), dict[str, float]()
        if recipe.evaluate_everything and run.data is None:
            parts = "+".join(part for part in recipe.split if part not in ("more", IMAGENET_PART))
            large = read_task("everything", "val", parts).subsample(recipe.evaluate_everything, 1)
            trained, harmonic = with_chosen_prior(trained, training, further, large, recipe.dtype)
        trained, figures = scoring.calibrate(trained, chosen_on, recipe.dtype, recipe.methods)
        notes["validation"] = json.dumps(figures | harmonic)
    elif start is not None:
        if start.prior is not None and run.data is None:
            trained = with_prior(trained, training, further, start.prior.ret_weight, start.prior.relation_weight)
        trained = trained.with_calibration(start.calibration)
    if run.data is not None and start is not None:
        trained = trained.vocabulary_replaced(start.vocabulary, start.config.words)
    save_checkpoint(trained.half(), run.target, notes)
    keep_photo_side(photo_side, run.target)
    about_words = "" if trained.vocabulary else "; its words are made by python -m training words"
    print(f"wrote {run.target}{about_words}")


def listwise_loss(logits: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the rows and over the columns of a pair matrix (c, c) whose diagonal matches."""
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def pair_logits(network: Network, sketches: Tokens, photos: Tokens) -> torch.Tensor:
    """Compares each of s sketches with each of p photos: (s, p) float32 relation logits."""
    drawn, shown = network.project(sketches, "sketch"), network.project(photos, "photo")
    rows = torch.arange(len(drawn)).repeat_interleave(len(shown))
    columns = torch.arange(len(shown)).repeat(len(drawn))
    return network.relate(drawn.rows(rows), shown.rows(columns)).view(len(drawn), len(shown))


def new_network(recipe: TwoSidedRecipe, photo_side: Path) -> Network:
    """Makes a network on a photo side, whose sketch side begins as that of photos and compares best matches."""
    # timm is imported here because it takes a second to load.
    from timm.layers.pos_embed import resample_abs_pos_embed

    state, notes = read_photo_side(photo_side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        config = recipe.config(file_sha256(photo_side), json.loads(notes.get("network", "{}")))
        network = Network(config)
    merged = network.state_dict() | state
    for name, value in state.items():
        if ".tuning." in name or ".head.tokens." in name:
            merged[name.replace("photo_side.", "")] = value
    merged["encoder.head.ret.weight"] = state["encoder.photo_side.head.from_first.weight"]
    position, side = state["encoder.photo_side.vit.position"][None], config.patches("sketch")
    merged["encoder.position"] = resample_abs_pos_embed(position, [side, side])[0]
    # The photos' projection evens out the spreads of its axes halfway. Tokens are compared as they were before that.
    spread = state["encoder.photo_side.head.tokens.weight"].norm(dim=1).reciprocal()
    for branch in ("sketch", "photo"):
        merged[f"cross.{branch}.norm2.weight"] = spread / spread.mean()
        for name in ("out.weight", "out.bias", "ffn.3.weight", "ffn.3.bias"):
            merged[f"cross.{branch}.{name}"].zero_()
        merged[f"relation.{branch}_worth.weight"].zero_()
    network.load_state_dict(merged)
    return network


def with_prior(
    network: Network, training: Corpus, further: Corpus, ret_weight: float, relation_weight: float
) -> Network:
    """Returns a copy of the network with the prior of its training sketches: k-means over their [Ret]."""
    plain = network.prior_replaced(None)
    matcher = scoring.ret_matcher(plain)
    chosen = some_of_each(training.sketches + further.sketches, SKETCHES_PER_CLASS)
    sketches = scoring.encode_pictures(matcher, chosen, "sketch")
    # Equal sketches cannot be the centres of two clusters.
    directions = np.unique(unit(sketches.ret).round(4), axis=0)
    # This is imported late because it takes longer than all other imports of a training.
    from sklearn.cluster import KMeans

    clusters = KMeans(min(PROTOTYPES, len(directions)), n_init=1, random_state=0).fit(directions)
    prior = Prior(unit(clusters.cluster_centers_.astype(np.float32)), 0.0, ret_weight, relation_weight)
    photos = training.photos + further.photos
    shown = scoring.encode_pictures(matcher, photos[:: max(1, len(photos) // LEVEL_PHOTOS)], "photo")
    return plain.prior_replaced(replace(prior, level=float(prior(shown.ret).mean())))


def with_chosen_prior(
    network: Network, training: Corpus, further: Corpus, large: Task, dtype: torch.dtype
) -> tuple[Network, dict[str, float]]:
    """Chooses the prior by the harmonic mean of precision@10, where trained classes lose at most MOST_LOSS."""
    other = with_prior(network, training, further, 0.0, 0.0)
    prior = other.prior
    if prior is None or not {TRAINED, UNSEEN} <= large.groups.keys():
        raise ModelError("a prior is chosen between trained classes and others; the gallery lacks one of them")
    matcher = scoring.trained_matcher(other, dtype)
    queries, gallery = scoring.encode_both(matcher, large.corpus)
    priors = prior(gallery.ret)
    cosines = 1 - matcher.ret_distances(queries, gallery) ** 2 / 2
    logits = matcher.relation_logits(queries[::RELATION_EVERY], gallery)
    ret_weight, *of_ret = best_weight(cosines, priors, RET_WEIGHTS, large)
    relation_weight, *of_relation = best_weight(logits, priors, RELATION_WEIGHTS, large.subsample(RELATION_EVERY, 1))
    figures: dict[str, float] = {}
    for name, (before, after) in (("ret", of_ret), ("rn", of_relation)):
        figures |= {f"harmonic {name}": round(before, 4), f"harmonic {name}, prior": round(after, 4)}
    return other.prior_replaced(replace(prior, ret_weight=ret_weight, relation_weight=relation_weight)), figures


def best_weight(
    scores: NDArray[np.floating], priors: NDArray[np.floating], weights: Sequence[float], large: Task
) -> tuple[float, float, float]:
    """Finds the best of the weights. Returns it, and the harmonic means without it and with it."""
    figures = measure(large, {str(weight): scores - weight * priors for weight in weights}).figures
    trained = {weight: groups[TRAINED][_FIGURE] for weight, groups in figures.items()}
    harmonic = {weight: groups[HARMONIC][_FIGURE] for weight, groups in figures.items()}
    first = str(weights[0])
    allowed = [weight for weight in figures if trained[weight] >= trained[first] - MOST_LOSS]
    best = max(allowed, key=lambda weight: harmonic[weight])
    return float(best), harmonic[first], harmonic[best]
