"""Trains CLIP-AT (CVPR 2023), by cosine distances. Letters in brackets are sections of its supplementary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from sketch_search.model import torch as network
from sketch_search.model.engine import Modality
from sketch_search.model.errors import ModelError
from sketch_search.training.corpus import Corpus, find_drawn_photos, with_pairs
from sketch_search.training.evaluation.figures import measure
from sketch_search.training.evaluation.scoring import score_matrices, trained_matcher
from sketch_search.training.papers import pictures
from sketch_search.training.papers.recipe import Count, Optimiser, Positive, Several, Table, VectorRecipe
from sketch_search.training.papers.trainer import CPU, Run, Trainer, digest, load_start
from sketch_search.training.tasks import Task

# The paper's sentence for a class.
SENTENCE = "a photo of a {}"
# Most ViTs of timm are trained with this mean and spread of pixels; a recipe's [network] may set others.
_MEAN = _STD = (0.5, 0.5, 0.5)
# The points at which densities of relative distances are computed. They span all possible values of these distances.
_POINTS = torch.linspace(-2, 2, 81)


# The mean of max(0, margin + distance(s, p+) - distance(s, p-)) over the rows of three (n, d).
_by_distance = F.triplet_margin_with_distance_loss
triplet_loss = partial(_by_distance, distance_function=lambda a, b: 1 - F.cosine_similarity(a, b, dim=-1))
# The backbone in a recipe of CLIP-AT if ``--backbone`` names a CLIP.
CLIP = "clip"


@dataclass(frozen=True)
class ClipAtLosses(Table):
    """The losses and their weights; 0 switches one off. The supplementary gives no weights."""

    triplet: float = 1.0  # on cosine distances
    margin: float = 0.2  # the public code's
    classes: float = 1.0  # of the classification by the text vectors of the training's classes
    temperature: Positive = 0.01  # of its cosines, at which CLIP's own training ends
    # Fine-grained alone: the average divergence of categories (C), about ten times as large as the triplet loss.
    divergence: float = 0.1
    bandwidth: Positive = 0.1  # of the kernels by which the relative distances of a category become a density
    # Fine-grained alone: the triplet loss on shuffled patches; in finer grids parts are harder to recognise.
    patches: float = 1.0
    patch_margin: float = 0.2
    patch_grid: Several = 2


@dataclass(frozen=True, kw_only=True)
class ClipAtOptimiser(Optimiser):
    """Adam; the public code has constant rates, of 1e-6 and 1e-4."""

    encoder_rate: float = 1e-6  # of the LayerNorms, the only part of the encoder that is learned
    prompt_rate: float = 1e-4
    text_rate: float = 1e-3  # of the projection to the text vectors, which only a ViT of timm needs
    warmup: Count = 20


@dataclass(frozen=True, kw_only=True)
class ClipAtRecipe(VectorRecipe):
    """A training of CLIP-AT. Fields of ``network`` are those of ``ClipAtConfig``.

    The supplementary gives no number of prompts, epochs or weights: these values are chosen here.
    level: "category", or "fine-grained" pairs with one encoder (A), from so many ``categories`` of a step.
    """

    method: ClassVar[str | None] = network.ClipAtNetwork.kind
    title: ClassVar[str] = "CLIP-AT"
    fixed: ClassVar[tuple[str, ...]] = ("vit", "shared_prompts", "shared_norms")

    level: Literal["category", "fine-grained"] = "category"
    categories: Several = 4
    losses: ClipAtLosses = ClipAtLosses()
    optimiser: ClipAtOptimiser = ClipAtOptimiser()

    @property
    def fine_grained(self) -> bool:
        """True if each sketch has to find the very photo that it was drawn from."""
        return self.level == "fine-grained"

    def config(self, vit: network.PretrainedVit) -> network.ClipAtConfig:
        """Makes the configuration of the network that starts from this ViT. Raises ModelError if it cannot be used."""
        shared = {"shared_prompts": self.fine_grained, "shared_norms": self.fine_grained}
        look = {"name": self.method, "image_size": vit.image_size, "mean": vit.mean, "std": vit.std}
        return self.configure(network.ClipAtConfig, vit=vit.layout, **shared, **look)

    def check(self) -> None:
        super().check()
        if not self.losses.triplet and not self.losses.classes:
            raise ModelError("all losses are switched off")
        if self.fine_grained and (self.batch % self.categories or self.batch < 2 * self.categories):
            raise ModelError("a fine-grained batch needs 2 categories or more, with 2 pairs or more of each")


def classification_loss(
    vectors: torch.Tensor, labels: torch.Tensor, texts: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Computes the cross-entropy of each picture's class, (n,), among the L2-normalised text vectors (c, d)."""
    return F.cross_entropy(F.normalize(vectors, dim=1) @ texts.T / temperature, labels)


def category_distances(sketches: torch.Tensor, photos: torch.Tensor) -> torch.Tensor:
    """Computes each sketch's distances to all photos of its category: (c, k, d) of c categories, twice -> (c, k, k)."""
    return 1 - F.normalize(sketches, dim=2) @ F.normalize(photos, dim=2).transpose(1, 2)


def hard_triplet_loss(distances: torch.Tensor, margin: float) -> torch.Tensor:
    """Computes the triplet loss within categories, (c, k, k); p- is the nearest photo that is not the sketch's own."""
    diagonal = torch.eye(distances.shape[1], dtype=torch.bool, device=distances.device)
    nearest = distances.masked_fill(diagonal, torch.inf).amin(dim=2)
    return (margin + distances.diagonal(dim1=1, dim2=2) - nearest).clamp(min=0).mean()


def relative_distances(distances: torch.Tensor) -> torch.Tensor:
    """Computes distance(s, p+) - distance(s, p-) of all triplets of each category (C): (c, k, k) -> (c, k (k - 1))."""
    k = distances.shape[1]
    relative = distances.diagonal(dim1=1, dim2=2)[:, :, None] - distances
    rows, columns = torch.nonzero(~torch.eye(k, dtype=torch.bool)).unbind(1)
    return relative[:, rows, columns]


def log_densities(relative: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """Makes log-probabilities (c, points) of relative distances (c, m), by normal kernels at points in [-2, 2]."""
    gaps = (_POINTS.to(relative.device)[None, :, None] - relative[:, None, :]) / bandwidth
    return (-gaps.square() / 2).logsumexp(dim=2).log_softmax(dim=1)


def average_divergence(logs: torch.Tensor) -> torch.Tensor:
    """Computes 1 / (c (c - 1)) sum_i sum_j KL(D_i, D_j) from log-probabilities (c, m) (C, eq. 1)."""
    count = len(logs)
    # KL(D_i, D_j) = sum D_i log D_i - sum D_i log D_j
    negentropy = (logs.exp() * logs).sum(dim=1, keepdim=True)
    return (negentropy - logs.exp() @ logs.T).sum() / (count * (count - 1))


def shuffle_patches(images: torch.Tensor, orders: torch.Tensor) -> torch.Tensor:
    """Puts the patches of square pictures (b, c, H, H) in another order: place i, by rows, gets patch orders[:, i]."""
    side = images.shape[2] // round(orders.shape[1] ** 0.5)
    patches = F.unfold(images, side, stride=side).take_along_dim(orders[:, None], dim=2)
    return F.fold(patches, images.shape[2:], side, stride=side)


def draw_orders(count: int, grid: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws two different permutations (count, grid * grid) for each of ``count`` pairs."""
    cells = grid * grid
    first = torch.rand(count, cells, generator=generator).argsort(dim=1)
    second = torch.rand(count, cells, generator=generator).argsort(dim=1)
    same = (first == second).all(dim=1)
    # An order that is turned by one place differs from what it was.
    return first, torch.where(same[:, None], second.roll(1, dims=1), second)


def draw_others(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draws for each place of a batch (b,) a place with another label."""
    different = (labels[:, None] != labels[None]).float()
    return torch.multinomial(different, 1, generator=generator)[:, 0]


class Trained(nn.Module):
    """The parameters of a training, with a linear map to text vectors if the ViT has no projection of CLIP's."""

    def __init__(self, learned: network.Learned, to_text: nn.Linear | None) -> None:
        super().__init__()
        self.learned, self.to_text = learned, to_text


class ClipAtTrainer(Trainer[Trained]):
    """A training of CLIP-AT. texts: (c, d) L2-normalised, of the classes. Raises ModelError for a misfit."""

    recipe: ClipAtRecipe

    def __init__(
        self,
        recipe: ClipAtRecipe,
        data: pictures.TrainingSet,
        texts: torch.Tensor,
        vit: network.PretrainedVit,
        folder: Path,
        device: torch.device = CPU,
        start: network.ClipAtNetwork | None = None,
    ) -> None:
        self.recipe, self.data, self.texts = recipe, data, texts.to(device)
        new = start or network.clip_at_network_from(recipe.config(vit), vit.weights, recipe.seed)
        self.start: network.ClipAtNetwork = new.to(device)
        self.config = self.start.config
        # The number of pairs of each category in a fine-grained step, and the categories with enough pairs.
        self.pairs = recipe.batch // recipe.categories
        pairs_of = {label: pictures.find_pairs(data.drawn_from, photos) for label, photos in enumerate(data.photo_rows)}
        self.usable = {label: pairs for label, pairs in pairs_of.items() if len(pairs) >= self.pairs}
        size, needed, grid = self.config.image_size, recipe.categories, recipe.losses.patch_grid
        if recipe.fine_grained and len(self.usable) < needed:
            raise ModelError(
                f"{len(self.usable)} categories have {self.pairs} photos with sketches drawn from them, and the recipe "
                f"needs {needed}; name sketches after their photos (NAME-1.png of NAME.jpg), add some, or lower batch "
                "or categories"
            )
        if recipe.fine_grained and recipe.losses.patches and size % grid:
            raise ModelError(f"{size} pixels cannot be cut into {grid} equal rows")
        to_text = None
        if not self.config.vit.projection:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(recipe.seed)
                to_text = nn.Linear(self.config.width, texts.shape[1], bias=False)
                nn.init.orthogonal_(to_text.weight)
        elif texts.shape[1] != self.config.width:
            raise ModelError(f"text vectors of {texts.shape[1]} numbers do not fit {self.config.width} of images")
        weights = start.state_dict() if start else vit.weights
        origin = digest(recipe.identity + data.key, weights | {"texts": texts})
        super().__init__(recipe, Trained(self.start.learned, to_text), folder, origin, device)

    @property
    def trained(self) -> network.ClipAtNetwork:
        """The average over steps. It shares the training's encoder."""
        with torch.device("meta"):
            copied = network.ClipAtNetwork(self.config)
        learned = {f"learned.{name}": value for name, value in self.average.learned.state_dict().items()}
        copied.load_state_dict(self.start.state_dict() | learned, assign=True)
        return copied.eval()

    def make_optimiser(self) -> torch.optim.Adam:
        chosen, learned = self.recipe.optimiser, self.network.learned
        parts = [(learned.norms, chosen.encoder_rate), (learned.prompts, chosen.prompt_rate)]
        parts += [] if self.network.to_text is None else [(self.network.to_text, chosen.text_rate)]
        return torch.optim.Adam([{"params": list(part.parameters()), "rate": rate} for part, rate in parts])

    def losses(self) -> dict[str, torch.Tensor]:
        """Computes classification, and triplets; within categories also divergence (C), and shuffled patches."""
        recipe, weights, generator = self.recipe, self.recipe.losses, self.generator()
        if recipe.fine_grained:
            labels, sketch_rows, photo_rows = self.pair_batch(generator)
            sketches, photos = self.data.sketches[sketch_rows], self.data.photos[photo_rows]
        else:
            labels, sketches, photos = pictures.class_batch(self.data, recipe.batch, generator)
        sketches, photos = (pictures.normalize(half, self.config) for half in (sketches, photos))
        sketch, photo = self._vectors(sketches, "sketch"), self._vectors(photos, "photo")
        losses = self._classification(sketch, photo, labels=labels)
        if weights.triplet and not recipe.fine_grained:
            wrong = photo[draw_others(labels, generator)]
            losses["triplet"] = weights.triplet * triplet_loss(sketch, photo, wrong, margin=weights.margin)
        if not recipe.fine_grained:
            return losses
        by_category = (half.reshape(recipe.categories, self.pairs, -1) for half in (sketch, photo))
        distances = category_distances(*by_category)
        if weights.triplet:
            losses["triplet"] = weights.triplet * hard_triplet_loss(distances, weights.margin)
        if weights.divergence:
            logs = log_densities(relative_distances(distances), weights.bandwidth)
            losses["divergence"] = weights.divergence * average_divergence(logs)
        if weights.patches:
            first, second = draw_orders(len(labels), weights.patch_grid, generator)
            alike = self._vectors(shuffle_patches(sketches, first), "sketch")
            right, wrong = (self._vectors(shuffle_patches(photos, order), "photo") for order in (first, second))
            losses["patches"] = weights.patches * triplet_loss(alike, right, wrong, margin=weights.patch_margin)
        return losses

    def pair_batch(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draws categories (b,), and the rows of sketches and of the photos that they were drawn from, by category."""
        chosen = torch.randperm(len(self.usable), generator=generator)[: self.recipe.categories]
        usable = list(self.usable.items())
        rows = list[tuple[int, int, int]]()
        for label, pairs in (usable[number] for number in chosen.tolist()):
            for number in torch.randperm(len(pairs), generator=generator)[: self.pairs].tolist():
                photo, drawn = pairs[number]
                rows.append((label, int(pictures.draw_some(drawn, 1, generator)), photo))
        labels, sketches, photos = torch.tensor(rows).unbind(1)
        return labels, sketches, photos

    def _vectors(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        with self.autocast():
            vectors: torch.Tensor = self.start.encoder(images.to(self.device), *self.network.learned.of(modality))
        return vectors.float()

    def _classification(self, *vectors: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        chosen, to_text = self.recipe.losses, self.network.to_text
        if not chosen.classes:
            return {}
        targets = labels.to(self.device), self.texts, chosen.temperature
        losses = [classification_loss(to_text(half) if to_text else half, *targets) for half in vectors]
        return {"classes": chosen.classes * torch.stack(losses).sum()}

    def judgement(self, figures: Mapping[str, float]) -> float:
        return figures.get("val_acc_1", super().judgement(figures))

    def figures(self, validation: Corpus) -> dict[str, float]:
        """Also measures how often the photo that a sketch was drawn from comes first in its class, if any was."""
        recipe, figures = self.recipe, super().figures(validation)
        part = Corpus(validation.sketches[:: recipe.evaluate_share], validation.photos)
        if not recipe.fine_grained or not (find_drawn_photos(part) >= 0).any():
            return figures
        pairs = with_pairs(part)
        matrices = score_matrices(trained_matcher(self.trained, self.dtype, recipe.methods), pairs)
        first = measure(Task(pairs, "fine-grained"), matrices).figures["ret"]["all"]["acc_1"]
        return figures | {"val_acc_1": round(first, 4)}


def read_start(
    recipe: ClipAtRecipe, backbone: str, words: Path | None, labels: Sequence[str]
) -> tuple[network.PretrainedVit, torch.Tensor, str]:
    """Reads a CLIP, or a ViT of timm with word vectors; the text vectors (c, d) of classes; and their source."""
    if recipe.backbone == CLIP:
        if words is not None:
            raise ModelError("CLIP reads the names of classes itself: leave --words out")
        clip = network.read_clip(backbone)
        texts = clip.text([SENTENCE.format(label.replace("_", " ")) for label in labels])
        return clip.encoder, texts, f"CLIP's text encoder, {SENTENCE.format('[CLASS]')!r}"
    weights = network.read_backbone(backbone)
    vectors = pictures.read_word_vectors(words)
    texts = F.normalize(pictures.class_vectors(vectors, pictures.class_rows(vectors, labels, recipe.names)), dim=1)
    return network.PretrainedVit(recipe.layout, recipe.image_size, weights, _MEAN, _STD), texts, vectors.name


def clip_at_trainer(
    recipe: ClipAtRecipe, run: Run, training: Corpus, _: Corpus
) -> tuple[ClipAtTrainer, dict[str, str]]:
    """Begins or continues a training of a network of CLIP-AT; see ``train_from_backbone``."""
    start = load_start(run, network.ClipAtNetwork)
    if start and start.config.shared_norms != recipe.fine_grained:
        raise ModelError(f"{run.start} was not trained at the level {recipe.level}; name a recipe of the other level")
    vit, texts, source = read_start(recipe, run.needed_backbone, run.words, training.labels)
    print(f"text vectors of {len(texts)} classes from {source}")
    data = pictures.training_set(training)
    return ClipAtTrainer(recipe, data, texts, vit, run.folder, run.device, start), {"texts": source}
