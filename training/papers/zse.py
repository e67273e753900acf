"""Trains ZSE-SBIR by the paper's samples and losses, from a recipe to a checkpoint file."""

import dataclasses
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from sketch_search.model import engine
from sketch_search.model.errors import ModelError
from sketch_search.model.torch import Encoder, Network, Tokens, TwoSidedEncoder, from_backbone, read_backbone
from sketch_search.model.torch.checkpoint import keep_photo_side, load_zse_network, photo_side_tensors
from sketch_search.training.corpus import Corpus, cache_folder, find_drawn_photos, with_pairs
from sketch_search.training.papers import pictures
from sketch_search.training.papers.recipe import Count, Optimiser, Positive, Recipe, Share, Table
from sketch_search.training.papers.trainer import CPU, Run, Trainer, digest, load_start
from sketch_search.training.papers.two_sided import listwise_loss

# Parts of an encoder that are not pretrained: they learn at the rate of the heads.
_NEW = re.compile(r"\.learnable\.|encoder\.project\.")
# How many pictures are encoded at once to keep their tokens.
_ENCODED_AT_ONCE = 64


@dataclass(frozen=True)
class Samples(Table):
    """ZSE-SBIR's samples and losses (section 3.6); see ``ZseTrainer``.

    count: how many samples a step has.
    pairs: "all" compares each sketch of a step with each photo (eqs. 10 and 11), "classes" does so with a sketch and
        a photo of each of ``count`` classes, and "two" makes two pairs of each sample, as the released code does.
    level: what a sketch and a photo have to share: the "category", or the "instance", where a sketch has to find the
        photo that it was drawn from among others of its class (section 4.2).
    ret: where [Ret] is taken from for the triplet loss: as it leaves the "encoder", or the "cross-attention".
    match, no_match: the targets of relation scores.
    triplet, relation: weights of the losses (eq. 12); 0 switches a loss off.
    listwise: weight of cross-entropies over the rows and columns of a step's pairs, with ``pairs`` "classes": of the
        cosines of [Ret] over ``temperature`` if ``triplet`` is not 0, and of relation logits if ``relation`` is not 0.
    margin: of the triplet loss (eq. 10).
    normalised: whether [Ret] is L2-normalised before its distances are taken, as in retrieval. At the rates that few
        steps need, the distances of eq. 10 otherwise shrink to 0.
    """

    count: Count = 15
    pairs: Literal["all", "classes", "two"] = "all"
    level: Literal["category", "instance"] = "category"
    ret: Literal["encoder", "cross-attention"] = "encoder"
    match: Share = 1.0
    no_match: Share = 0.0
    triplet: float = 1.0
    relation: float = 1.0
    listwise: float = 0.0
    temperature: Positive = 0.1
    margin: float = 1.0
    normalised: bool = False

    @property
    def pictures(self) -> int:
        """The number of pictures of a step: the released code adds a second sketch to each sample."""
        return self.count * {"all": 3, "classes": 2, "two": 4}[self.pairs]


@dataclass(frozen=True, kw_only=True)
class ZseOptimiser(Optimiser):
    """AdamW."""

    encoder_rate: float = 1e-4
    head_rate: float = 5e-4
    decay: float = 0.05
    warmup: Count = 50
    last: Share = 0.01
    clip: float = 1.0
    average: float = 0.998


@dataclass(frozen=True, kw_only=True)
class ZseRecipe(Recipe):
    """A training of ZSE-SBIR, whose recipes name no method.

    preset: the configuration that ``network`` changes.
    tuned: what is trained: "all" of the network; "norms", all but the matrices of the encoder's blocks; or "pairs", the
        projection of tokens and what compares pairs, on features of the encoder that are computed once.
    kept: of how many sketches and photos of each class, at most, these features are kept.
    """

    title: ClassVar[str] = "ZSE-SBIR"
    fixed: ClassVar[tuple[str, ...]] = ("mean", "std", "released_preprocessing")

    preset: str
    tuned: Literal["all", "norms", "pairs"] = "all"
    kept: Count = 60
    steps: Count = 250
    samples: Samples = Samples()
    optimiser: ZseOptimiser = ZseOptimiser()

    @property
    def methods(self) -> tuple[engine.Method, ...]:
        trained: dict[engine.Method, float] = {"rn": self.samples.relation, "ret": self.samples.triplet}
        return tuple(method for method, weight in trained.items() if weight)

    @property
    def pictures(self) -> int:
        return self.samples.pictures

    @property
    def fewest_classes(self) -> int:
        return 1 if self.samples.level == "instance" else 2

    @property
    def config(self) -> engine.ZseConfig:
        """The configuration of the network. Raises ModelError for one that cannot be used."""
        return self.configure(engine.ZseConfig, **dataclasses.asdict(engine.preset(self.preset)))

    def check(self) -> None:
        super().check()
        if not self.methods:
            raise ModelError("all losses are switched off")
        if self.samples.listwise and self.samples.pairs != "classes":
            raise ModelError('listwise losses need pairs = "classes"')
        if self.samples.level == "instance" and self.samples.pairs == "classes":
            raise ModelError('pairs = "classes" are of categories')
        if self.config.photo_side and self.tuned == "all":
            raise ModelError('the matrices of a photo side are frozen: set tuned to "norms" or "pairs"')


Kept: TypeAlias = dict[engine.Modality, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def encoder_of(network: Network) -> Encoder:
    assert isinstance(network.encoder, Encoder)
    return network.encoder


def instances(
    data: pictures.TrainingSet, kept: Kept | None = None
) -> list[tuple[torch.Tensor, dict[int, torch.Tensor]]]:
    """Finds photos (n,) and their sketches' rows by class, if some tokens are kept of these. Raises ModelError."""
    drawn_from, of_classes = data.drawn_from, data.photo_rows
    if kept:
        drawn_from = torch.where(kept["sketch"][2] >= 0, drawn_from, -1)
        of_classes = tuple(photos[kept["photo"][2][photos] >= 0] for photos in of_classes)
    pairs = ((photos, dict(pictures.find_pairs(drawn_from, photos))) for photos in of_classes)
    usable = [(photos, sketches) for photos, sketches in pairs if sketches and len(photos) > 1]
    if not usable:
        problem = "no class has a sketch that is named after one of two photos or more"
        raise ModelError(f"{problem}; name sketches after their photos (NAME-1.png of NAME.jpg)")
    return usable


def spread(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Chooses so many of the rows (n,), at equal distances, or all of them -> (min(n, count),)."""
    return rows[torch.arange(min(len(rows), count)) * len(rows) // min(len(rows), count)]


def all_triplets_loss(distances: torch.Tensor, alike: torch.Tensor, margin: float) -> torch.Tensor:
    """Computes eq. 10 over all triplets, from distances (n, h) of sketches and photos. alike: (n, h) bool."""
    triplets = alike[:, :, None] & ~alike[:, None, :]
    gaps = (distances[:, :, None] - distances[:, None, :] + margin).clamp(min=0)
    return (gaps * triplets).sum() / triplets.sum()


class ZseTrainer(Trainer[Network]):
    """A training of a network of ZSE-SBIR (section 3.6). start: takes the place of a new network on the backbone.

    A sample is a sketch, a photo of its class, and a photo of another class. Relation scores (eq. 11) and triplets of
    [Ret] (eq. 10) are of all sketches and photos of a step. With two pairs a sample also has a second sketch of the
    class: its first sketch and photo match, its second sketch and other photo do not, and the first sketch and both
    photos are the triplet.

    Of an encoder that is not trained, tokens of some pictures of each class are computed once, and kept.

    At the level of instances a step has one class, and a sketch matches only the photo that it was drawn from. Raises
    ModelError if no class has two photos, one of them with a sketch.
    """

    recipe: ZseRecipe

    def __init__(
        self,
        recipe: ZseRecipe,
        data: pictures.TrainingSet,
        backbone: dict[str, torch.Tensor],
        folder: Path,
        device: torch.device = CPU,
        start: Network | None = None,
    ) -> None:
        self.recipe, self.data = recipe, data
        self.instances = instances(data) if recipe.samples.level == "instance" else []
        network = start or from_backbone(recipe.config, backbone, recipe.seed)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(recipe.tuned == "all" or not name.startswith("encoder.") or self.tunes(name))
        origin = digest(recipe.identity + data.key, start.state_dict() if start else backbone)
        super().__init__(recipe, network, folder, origin, device)
        self.kept = self.keep_tokens() if recipe.tuned == "pairs" else None
        if self.kept and self.instances:
            self.instances = instances(data, self.kept)

    def tunes(self, name: str) -> bool:
        """Says whether a parameter of a frozen encoder is trained: all but matrices of its blocks and patches."""
        matrix = name.endswith("weight") and ("attn." in name or "mlp." in name or "tokenizer." in name)
        return not matrix if self.recipe.tuned == "norms" else ".project." in name

    def keep_tokens(self) -> Kept:
        """Encodes some pictures of each class, or reads their features (n, t, d) float16, positions, and rows.

        rows: (pictures,), the place of each picture of the training set in the others; -1 for one that is not kept.
        """
        tokens, encoder = Kept(), encoder_of(self.network)
        frozen = {name: value for name, value in encoder.state_dict().items() if not name.startswith("project.")}
        for modality in get_args(engine.Modality):
            shape = f"{encoder.config.image_size} {encoder.config.keep_rate(modality)} {encoder.config.select_after}"
            key = digest(f"{self.data.key} {self.recipe.kept} {shape}", frozen)
            pixels, classes = self.data.of(modality)
            chosen = torch.cat([spread(rows, self.recipe.kept) for rows in classes])
            path = cache_folder() / "tokens" / f"{modality}-{key[:16]}.safetensors"
            kept = pictures.keep_tensors(path, partial(self._encode, pixels, chosen, modality))
            at = torch.full((len(pixels),), -1)
            at[chosen] = torch.arange(len(chosen))
            tokens[modality] = kept["features"], kept["positions"], at
        return tokens

    @torch.no_grad()
    def _encode(self, pixels: torch.Tensor, chosen: torch.Tensor, modality: engine.Modality) -> dict[str, torch.Tensor]:
        encoder, parts = encoder_of(self.average.eval()), []
        for some_rows in tqdm(torch.split(chosen, _ENCODED_AT_ONCE), desc=f"encoding each {modality}", disable=None):
            images = pictures.normalize(pixels[some_rows], self.network.config).to(self.device)
            with self.autocast():
                features, positions = encoder.features(images, modality)
            parts.append((features.half().cpu(), positions.short().cpu()))
        features, positions = (torch.cat(of_all) for of_all in zip(*parts, strict=True))
        return {"features": features, "positions": positions}

    def tokens(self, rows: torch.Tensor, modality: engine.Modality) -> Tokens:
        """Encodes pictures of the training set, or reads the kept tokens of their encoding."""
        if self.kept is None:
            pixels = pictures.normalize(self.data.of(modality)[0][rows], self.network.config)
            return self.network.encode(pixels.to(self.device), modality)
        features, positions = (kept[self.kept[modality][2][rows]].to(self.device) for kept in self.kept[modality][:2])
        return encoder_of(self.network).projected(features.float(), positions.long())

    @property
    def trained(self) -> Network:
        return self.average

    def losses(self) -> dict[str, torch.Tensor]:
        network, options = self.network, self.recipe.samples
        sketch_rows, photo_rows, of_sketch, of_photo = self.batch(self.generator())
        losses: dict[str, torch.Tensor] = {}
        with self.autocast():
            drawn, shown = self.tokens(sketch_rows, "sketch"), self.tokens(photo_rows, "photo")
            if options.listwise and options.triplet:
                sketch_ret, photo_ret = (F.normalize(side.ret.float(), dim=1) for side in (drawn, shown))
                losses["ret"] = options.listwise * listwise_loss(sketch_ret @ photo_ret.T / options.temperature)
            s, p = network.project(drawn, "sketch"), network.project(shown, "photo")
            if options.pairs != "two":
                first, second = torch.cartesian_prod(torch.arange(len(s)), torch.arange(len(p))).unbind(1)
            else:
                first = second = torch.arange(len(s))
            s, p = s.rows(first), p.rows(second)
            sketches, photos = network.align(s, p)
            logits = network.relation_logits(sketches, photos, s, p)
        alike = (of_sketch[first] == of_photo[second]).to(self.device)
        if options.listwise and options.relation:
            losses["pairs"] = options.listwise * listwise_loss(logits.reshape(len(sketch_rows), len(photo_rows)))
        if options.triplet:
            sides = (s, p) if options.ret == "encoder" else (sketches, photos)
            sketch_ret, photo_ret = (side.ret.float() for side in sides)
            if options.normalised:
                sketch_ret, photo_ret = F.normalize(sketch_ret, dim=1), F.normalize(photo_ret, dim=1)
            if options.pairs != "two":
                shape = len(sketch_rows), len(photo_rows)
                distances = F.pairwise_distance(sketch_ret, photo_ret).reshape(shape)
                triplet = all_triplets_loss(distances, alike.reshape(shape), options.margin)
            else:
                right, wrong = photo_ret[: options.count], photo_ret[options.count :]
                triplet = F.triplet_margin_loss(sketch_ret[: options.count], right, wrong, options.margin)
            losses["triplet"] = options.triplet * triplet
        if options.relation:
            target = torch.where(alike, options.match, options.no_match)
            losses["relation"] = options.relation * F.mse_loss(logits.sigmoid(), target)
        return losses

    def batch(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Draws the rows of n sketches and of m photos, and what each shows: a class, or of instances a photo's row."""
        options, data = self.recipe.samples, self.data
        if self.instances:
            return self._instance_batch(generator)
        classes = len(data.photo_rows)
        if options.pairs == "classes":
            right = torch.randperm(classes, generator=generator)[: options.count]
            return self._draw(right, "sketch", generator), self._draw(right, "photo", generator), right, right
        right = torch.randint(classes, (options.count,), generator=generator)
        other = (right + torch.randint(1, classes, (options.count,), generator=generator)) % classes
        of_sketches, shown = right if options.pairs == "all" else torch.cat([right, right]), torch.cat([right, other])
        return self._draw(of_sketches, "sketch", generator), self._draw(shown, "photo", generator), of_sketches, shown

    def _draw(self, labels: torch.Tensor, modality: engine.Modality, generator: torch.Generator) -> torch.Tensor:
        """Draws a picture of each class, one whose tokens are kept if some are."""
        classes = self.data.of(modality)[1]
        if self.kept is not None:
            at = self.kept[modality][2]
            classes = tuple(rows[at[rows] >= 0] for rows in classes)
        return pictures.draw_of_each(classes, labels, generator)

    def _instance_batch(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        count = self.recipe.samples.count
        photos, sketches_of = self.instances[int(torch.randint(len(self.instances), (1,), generator=generator))]
        drawn = list(sketches_of)
        order = torch.randperm(len(drawn), generator=generator)
        right = torch.tensor([drawn[number] for number in order.tolist() * count])[:count]
        others = photos[torch.multinomial((photos[None] != right[:, None]).float(), 1, generator=generator)[:, 0]]
        of_sketches = right if self.recipe.samples.pairs == "all" else torch.cat([right, right])
        sketches = torch.cat([pictures.draw_some(sketches_of[photo], 1, generator) for photo in of_sketches.tolist()])
        shown = torch.cat([right, others])
        return sketches, shown, of_sketches, shown

    def judged(self, validation: Corpus, share: int) -> tuple[Corpus, NDArray[np.bool_]]:
        """At the level of instances a sketch has one right photo among all of the validation."""
        if not self.instances:
            return super().judged(validation, share)
        pairs = with_pairs(Corpus(validation.sketches[::share], validation.photos))
        return pairs, find_drawn_photos(pairs)[:, None] == np.arange(len(pairs.photos))

    def make_optimiser(self) -> torch.optim.AdamW:
        chosen = self.recipe.optimiser
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                pretrained = name.startswith("encoder.") and not _NEW.search(name)
                rate = chosen.encoder_rate if pretrained else chosen.head_rate
                groups.setdefault((rate, chosen.decay if parameter.ndim > 1 else 0.0), []).append(parameter)
        options = (({"rate": rate, "weight_decay": decay}, group) for (rate, decay), group in groups.items())
        return torch.optim.AdamW([{"params": group, **of_group} for of_group, group in options])


def photo_side_backbone(run: Run) -> tuple[Path, dict[str, torch.Tensor]]:
    """Finds the photo side that a training starts from, and its tensors.

    The backbone is a photo side, or a two-sided checkpoint: then norms, biases and scales are those of its sketches.
    """
    if run.start:
        return engine.find_photo_side(load_zse_network(run.start).config.photo_side, run.start), {}
    path = Path(run.needed_backbone)
    if not engine.is_checkpoint(path):
        return path, photo_side_tensors(path)
    encoder = load_zse_network(path).encoder
    if not isinstance(encoder, TwoSidedEncoder):
        raise ModelError(f"{path} is not two-sided; name a photo side or a two-sided checkpoint with --backbone")
    tuning = {f"tuning.{name}": value for name, value in encoder.tuning.state_dict().items()}
    return engine.find_photo_side(encoder.config.photo_side, path), encoder.photo_side.state_dict() | tuning


def zse_trainer(recipe: ZseRecipe, run: Run, training: Corpus, _: Corpus) -> tuple[ZseTrainer, dict[str, str]]:
    """Begins or continues a training of a network of ZSE-SBIR; see ``train_from_backbone``."""
    start = load_start(run, Network)
    if start and isinstance(start.config, engine.TwoSidedConfig):
        raise ModelError(f"{run.start} is two-sided: continue it by a recipe such as two-sided/own")
    backbone, side = dict[str, torch.Tensor](), None
    config = start.config if start else recipe.config
    if config.photo_side:
        side, backbone = photo_side_backbone(run)
        recipe = replace(recipe, network={**recipe.network, "photo_side": engine.file_sha256(side)})
    elif start is None:
        backbone = read_backbone(run.needed_backbone)
    data = pictures.training_set(training, fewest=recipe.fewest_classes)
    trainer = ZseTrainer(recipe, data, backbone, run.folder, run.device, start)
    if side:
        keep_photo_side(side, run.target)
    return trainer, {}
