"""Trains Sketch-an-Anchor (Ribeiro and Ponti, 2023), with its anchors and losses. Numbers are those of the paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from sketch_search.model.errors import ModelError
from sketch_search.model.torch import Anchor, AnchorConfig, AnchorNetwork, anchor_network_from, read_backbone
from sketch_search.training.corpus import Corpus, cache_folder, data_folder, read_split
from sketch_search.training.papers import pictures
from sketch_search.training.papers.pictures import WordVectors, class_rows, class_vectors, read_word_vectors
from sketch_search.training.papers.recipe import Count, Optimiser, Positive, Share, Table, VectorRecipe
from sketch_search.training.papers.trainer import CPU, Run, Trainer, digest, load_start
from sketch_search.training.tasks import STANDARD_SPLITS, standard_split

# Adam's epsilon in TensorFlow, which the paper used.
_EPSILON = 1e-7


@dataclass(frozen=True)
class Anchoring(Table):
    """The treatment of the anchors (sections 3.4 and 3.5)."""

    graph: Annotated[int, Field(ge=0)] = 4  # layers of the graph convolution that adapts the anchors; 0 for none
    randomised: bool = True  # whether each step draws its anchors
    neighbours: Annotated[int, Field(ge=0)] = 10  # the nearest words that a class's word may be swapped for
    swap: Share = 1.0  # the share of words that a step swaps for a neighbour
    # Factor of similarities in targets and graph (eq. 2): by the paper's 1 those of 100 classes are nearly equal.
    sharpness: Positive = 1.0


@dataclass(frozen=True, kw_only=True)
class AnchorOptimiser(Optimiser):
    """Adam (section 4.2)."""

    rate: float = 5e-6
    warmup: Count = 150
    last: Share = 0.2
    # Factor of the gradient that enters the ViT. It changes little, because Adam divides gradients by their own size.
    backbone_gradient: float = 0.1


@dataclass(frozen=True, kw_only=True)
class AnchorRecipe(VectorRecipe):
    """A training of Sketch-an-Anchor. Fields of ``network`` are those of ``AnchorConfig``.

    temperature: the same for all losses; the paper does not give it. photos: of each class, 0 for all, photos_by:
    the nearest to their class's visual anchor, the farthest, or any.
    """

    method: ClassVar[str | None] = AnchorNetwork.kind
    title: ClassVar[str] = "Sketch-an-Anchor"
    fixed: ClassVar[tuple[str, ...]] = ("vit",)

    temperature: Positive = 0.07
    photos: Annotated[int, Field(ge=0)] = 0
    photos_by: Literal["nearest", "farthest", "chance"] = "nearest"
    anchoring: Anchoring = Anchoring()
    optimiser: AnchorOptimiser = AnchorOptimiser()

    @property
    def config(self) -> AnchorConfig:
        """The configuration of the network. Raises ModelError for one that cannot be used."""
        return self.configure(AnchorConfig, name=self.method, vit=self.layout)

    def check(self) -> None:
        super().check()
        _ = self.config


@dataclass(frozen=True)
class WordAnchors:
    """Anchors of words (section 3.3): of each class, (c, d) float32, and its nearest words, (c, k, d); k may be 0."""

    vectors: torch.Tensor
    neighbours: torch.Tensor

    def draw(self, generator: torch.Generator, swap: float) -> torch.Tensor:
        """Draws (c, d): the vectors, each replaced by a neighbour with the probability ``swap`` (section 3.5)."""
        classes, count = self.neighbours.shape[:2]
        if not count:
            return self.vectors
        chosen = torch.randint(count, (classes,), generator=generator)
        swapped = torch.rand(classes, generator=generator) < swap
        return torch.where(swapped[:, None], self.neighbours[torch.arange(classes), chosen], self.vectors)


@dataclass(frozen=True)
class VisualAnchors:
    """Anchors of photos (section 3.3): means and standard deviations of the features of each class, (c, d) float32."""

    vectors: torch.Tensor
    deviations: torch.Tensor

    @staticmethod
    def of_features(features: torch.Tensor, rows: tuple[torch.Tensor, ...]) -> "VisualAnchors":
        """Computes the anchors of classes with these rows from the features (n, d) of all photos."""
        means = torch.stack([features[of_class].mean(dim=0) for of_class in rows])
        return VisualAnchors(means, torch.stack([features[of_class].std(dim=0, correction=0) for of_class in rows]))

    def draw(self, generator: torch.Generator, swap: float) -> torch.Tensor:
        """Draws a sample of each class's normal distribution, (c, d) (section 3.5)."""
        return self.vectors + self.deviations * torch.randn(self.vectors.shape, generator=generator)


# The anchors that a recipe uses, in the order of ``ANCHORS``.
Anchors: TypeAlias = Mapping[Anchor, WordAnchors | VisualAnchors]


def similarities(anchors: torch.Tensor, sharpness: float = 1.0) -> torch.Tensor:
    """Computes the cosines of anchors (c, d), times ``sharpness`` -> (c, c), the matrix A of eq. 2."""
    directions = F.normalize(anchors, dim=1)
    return sharpness * (directions @ directions.T)


def pad_anchors(anchors: torch.Tensor, units: int) -> torch.Tensor:
    """Appends zeros to anchors (c, d) -> (c, units), which keeps all cosines. Raises ModelError if d is larger."""
    if anchors.shape[1] > units:
        problem = f"anchors of {anchors.shape[1]} numbers do not fit into {units} units"
        raise ModelError(f"{problem}; set units in the recipe's [network]")
    return F.pad(anchors, (0, units - anchors.shape[1]))


def word_anchors(
    words: WordVectors,
    labels: Sequence[str],
    names: Mapping[str, Sequence[str]],
    *,
    neighbours: int,
    kept_out: Sequence[str] = (),
) -> WordAnchors:
    """Finds the vectors of classes, and the words nearest to each by cosine, which never name classes ``kept_out``."""
    rows_of = class_rows(words, labels, names)
    vectors, rows_by_class = class_vectors(words, rows_of), list(rows_of.values())
    forbidden = sorted({row for rows in class_rows(words, kept_out, names, lacking=True).values() for row in rows})
    count = max(0, min(neighbours, len(words.words) - len(forbidden) - max(len(rows) for rows in rows_by_class)))
    directions = F.normalize(words.vectors, dim=1)
    chosen = []
    for vector, rows in zip(vectors, rows_by_class, strict=True):
        products = directions @ vector
        products[[*forbidden, *rows]] = -torch.inf
        chosen.append(products.topk(count).indices)
    return WordAnchors(vectors, directions[torch.stack(chosen)])


def choose_photos(
    recipe: AnchorRecipe, features: torch.Tensor, anchors: torch.Tensor, rows: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Chooses the photos (rows of each class) that are trained on, by the cosines of features and visual anchors."""
    if not recipe.photos:
        return tuple(rows)
    generator, chosen = torch.Generator().manual_seed(recipe.seed), []
    for photo_rows, anchor in zip(rows, anchors, strict=True):
        if recipe.photos_by == "chance":
            order = torch.randperm(len(photo_rows), generator=generator)
        else:
            cosines = F.cosine_similarity(features[photo_rows], anchor[None])
            order = cosines.argsort(descending=recipe.photos_by == "nearest")
        chosen.append(photo_rows[order[: recipe.photos]])
    return tuple(chosen)


def compute_features(
    config: AnchorConfig, weights: dict[str, torch.Tensor], pixels: torch.Tensor, key: str
) -> torch.Tensor:
    """Computes the pretrained ViT's class token of each photo, (n, d) L2-normalised, kept in the user's cache."""
    shape = repr((config.vit, config.image_size, config.mean, config.std))
    path = cache_folder() / "features" / f"{digest(key + shape, weights)[:32]}.safetensors"

    def ask() -> dict[str, torch.Tensor]:
        return {"features": F.normalize(pictures.class_tokens(config.vit, weights, pixels, config), dim=1)}

    return pictures.keep_tensors(path, ask)["features"]


def join_edges(of_each: list[torch.Tensor]) -> torch.Tensor:
    """Normalises the adjacency (g c, g c) of g graphs (c, c), whose anchors of one class are joined like themselves."""
    rows, apart = [], ~torch.eye(len(of_each[0]), dtype=torch.bool, device=of_each[0].device)
    for number, edges in enumerate(of_each):
        across = edges.diagonal()[:, None].expand_as(edges).masked_fill(apart, -torch.inf)
        rows.append(torch.cat([edges if other == number else across for other in range(len(of_each))], dim=1))
    return torch.cat(rows).softmax(dim=1)


class AnchorGraph(nn.Module):
    """Adapts anchors (section 3.5) by V <- A V W (eq. 5), orthogonal at first; none without layers."""

    def __init__(self, units: int, layers: int, sharpness: float = 1.0) -> None:
        super().__init__()
        self.units, self.sharpness = units, sharpness
        self.layers = nn.ModuleList(nn.Linear(units, units, bias=False) for _ in range(layers))
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight)  # type: ignore[arg-type]

    def forward(self, anchors: Mapping[Anchor, torch.Tensor]) -> dict[Anchor, torch.Tensor]:
        """Anchors (c, d) of any widths up to ``units`` -> adapted anchors (c, units)."""
        edges = join_edges([similarities(of_one, self.sharpness) for of_one in anchors.values()])
        nodes = torch.cat([pad_anchors(of_one, self.units) for of_one in anchors.values()])
        for layer in self.layers:
            nodes = layer(edges @ nodes)
        return dict(zip(anchors, nodes.chunk(len(anchors)), strict=True))


def info_nce(sketches: torch.Tensor, photos: torch.Tensor, temperature: float) -> torch.Tensor:
    """Computes InfoNCE between the vectors (n, d) of sketches and photos that are paired by row (eq. 1)."""
    cosines = F.normalize(sketches, dim=1) @ F.normalize(photos, dim=1).T
    return F.cross_entropy(cosines / temperature, torch.arange(len(cosines), device=cosines.device))


def anchored_contrastive_loss(
    vectors: torch.Tensor, others: torch.Tensor, alike: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Eqs. 3 and 4: vectors (n, d), others (m, d) anchors or photos, alike (n, m) similarities of their anchors."""
    target = alike.softmax(dim=1)
    cosines = F.normalize(vectors, dim=1) @ F.normalize(others, dim=1).T
    return -(target * (cosines / temperature).log_softmax(dim=1)).sum(dim=1).mean()


class AnchoredNetwork(nn.Module):
    """The network and, beside it, the graph that adapts the anchors, which does not get into the checkpoint."""

    def __init__(self, network: AnchorNetwork, graph: AnchorGraph) -> None:
        super().__init__()
        self.network, self.graph = network, graph


class AnchorTrainer(Trainer[AnchoredNetwork]):
    """A training of a network of Sketch-an-Anchor. Raises ModelError if the backbone is not the recipe's."""

    recipe: AnchorRecipe

    def __init__(
        self,
        recipe: AnchorRecipe,
        data: pictures.TrainingSet,
        anchors: Anchors,
        backbone: dict[str, torch.Tensor],
        folder: Path,
        device: torch.device = CPU,
        start: AnchorNetwork | None = None,
    ) -> None:
        self.recipe, self.data, self.anchors = recipe, data, anchors
        network = start or anchor_network_from(recipe.config, backbone, recipe.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            anchoring = recipe.anchoring
            graph = AnchorGraph(recipe.config.units, anchoring.graph if anchors else 0, anchoring.sharpness)
        # The anchors of photos need no part in the digest, because photos and backbone determine them.
        words = {f"words.{name}": value for name, value in vars(anchors["word"]).items()} if "word" in anchors else {}
        weights = backbone | ({f"start.{name}": value for name, value in start.state_dict().items()} if start else {})
        origin = digest(recipe.identity + data.key, weights | words)
        super().__init__(recipe, AnchoredNetwork(network, graph), folder, origin, device)

    @property
    def trained(self) -> AnchorNetwork:
        return self.average.network

    def make_optimiser(self) -> torch.optim.Adam:
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        return torch.optim.Adam([{"params": trained, "rate": self.recipe.optimiser.rate}], eps=_EPSILON)

    def losses(self) -> dict[str, torch.Tensor]:
        """Computes InfoNCE, and anchored losses of sketches, of photos, and of sketches with photos (section 3.5)."""
        recipe, network = self.recipe, self.network.network
        generator = self.generator()
        labels, sketches, photos = pictures.class_batch(self.data, recipe.batch, generator)
        with self.autocast():
            pixels = torch.cat([pictures.normalize(half, network.config) for half in (sketches, photos)])
            tokens = network.retrieval_tokens(pixels.to(self.device)).float()
        factor = recipe.optimiser.backbone_gradient
        tokens.register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]
        (sketch, of_sketch), (photo, of_photo) = (network.represent(half) for half in tokens.chunk(2))
        how = recipe.anchoring
        drawn = {n: a.draw(generator, how.swap) if how.randomised else a.vectors for n, a in self.anchors.items()}
        drawn = {name: vectors.to(self.device) for name, vectors in drawn.items()}
        adapted = self.network.graph(drawn) if drawn else {}
        losses = {"nce": info_nce(sketch, photo, recipe.temperature)}
        for name, s, p in zip(drawn, of_sketch, of_photo, strict=False):
            alike = similarities(drawn[name], how.sharpness)[labels]
            for what, vectors, others, target in (
                ("sketch", s, adapted[name], alike),
                ("photo", p, adapted[name], alike),
                ("sample", s, p, alike[:, labels]),
            ):
                losses[f"{name}_{what}"] = anchored_contrastive_loss(vectors, others, target, recipe.temperature)
        return losses


def anchor_trainer(
    recipe: AnchorRecipe, run: Run, training: Corpus, validation: Corpus
) -> tuple[AnchorTrainer, dict[str, str]]:
    """Begins or continues a training of a network of Sketch-an-Anchor; see ``train_from_backbone``."""
    start, kinds = load_start(run, AnchorNetwork), recipe.config.anchors
    if start and (start.config.anchors, start.config.units) != (recipe.config.anchors, recipe.config.units):
        raise ModelError(f"{run.start} has other anchors than the recipe; name the recipe that it was trained by")
    # The visual anchors are features of the pretrained ViT, which a start has no longer.
    backbone, data = read_backbone(run.needed_backbone), pictures.training_set(training)
    anchors, notes = dict[Anchor, WordAnchors | VisualAnchors](), dict[str, str]()
    if "word" in kinds:
        vectors = read_word_vectors(run.words)
        print(f"word anchors from {vectors.name}")
        notes["words"] = vectors.name
        neighbours = recipe.anchoring.neighbours if recipe.anchoring.randomised else 0
        # The names of these classes may be unknown to the training.
        kept_out, part = validation.labels, recipe.split[0]
        if run.data is None:
            kept_out += standard_split(part)[1] if part in STANDARD_SPLITS else read_split(data_folder(), "unseen")
        anchors["word"] = word_anchors(vectors, training.labels, recipe.names, neighbours=neighbours, kept_out=kept_out)
    if "visual" in kinds or recipe.photos:
        features = compute_features(recipe.config, backbone, data.photos, data.key)
        visual = VisualAnchors.of_features(features, data.photo_rows)
        anchors |= {"visual": visual} if "visual" in kinds else {}
        data = replace(data, photo_rows=choose_photos(recipe, features, visual.vectors, data.photo_rows))
    return AnchorTrainer(recipe, data, anchors, backbone, run.folder, run.device, start), notes
