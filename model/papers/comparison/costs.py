"""Parameters and multiply-adds of trainings and searches, counted by PyTorch without computing them (Table 2)."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.errors import ModelError
from model.evaluation import new_figure
from model.network import PretrainedVit, RetNetwork, VitSizes, build_vit, layout_of
from model.papers.clip_at import ClipAtTrainer
from model.papers.pictures import SIDE, TrainingSet
from model.papers.recipe import CLIP, AnchorRecipe, ClipAtRecipe, Recipe, ZseRecipe, read_recipe
from model.papers.sketch_an_anchor import AnchorTrainer, SemanticAnchors, VisualAnchors, WordAnchors
from model.papers.trainings import Outcome, markdown
from model.papers.zse.trainer import ZseTrainer

# Numbers of a vector of word2vec.
_WORD_WIDTH = 300
# Classes of the classifier that a pretrained ViT brings.
_LABELS = 1000


@dataclass(frozen=True)
class StepCosts:
    """Costs of a recipe. Multiply-adds (MACs) count matrix products and convolutions; papers call them FLOPS.

    Attributes:
        image_size: side of the pictures in pixels.
        parameters: how many numbers the network has.
        trained_parameters: with those of what is trained beside it and left behind, such as the graph of anchors.
        pictures: how many a step sees.
        forward_macs: from the pictures of a step to its losses. step_macs: with the gradients.
        photo_macs: encoding one photo, as an index needs it.
        pair_macs: comparing one sketch with one photo that are encoded; 0 for a network that compares vectors.
    """

    image_size: int
    parameters: int
    trained_parameters: int
    pictures: int
    forward_macs: int
    step_macs: int
    photo_macs: int
    pair_macs: int


def step_costs(path: Path) -> StepCosts:
    """The costs of a recipe, of its last phase. Neither pictures nor weights are needed.

    Raises ModelError for a recipe that cannot be used.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = blank_trainer(read_recipe(path, Recipe), Path(folder))
        trainer.prepare()
        # Its weights have no values, and so has nothing that is computed with them.
        with FakeTensorMode(allow_non_fake_inputs=True):
            trainer.network = copy.deepcopy(trainer.network)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            losses = trainer.losses()
            forward = counter.get_total_flops() // 2
            torch.autograd.backward(torch.stack(list(losses.values())).sum())
    network, with_others = _parts(trainer)
    photo, pair = _inference(network.eval(), compares_pairs="rn" in trainer.recipe.methods)
    return StepCosts(
        image_size=network.config.image_size,
        parameters=_parameters(network),
        trained_parameters=with_others,
        pictures=trainer.recipe.pictures // trainer.recipe.steps,
        forward_macs=forward,
        step_macs=counter.get_total_flops() // 2,
        photo_macs=photo,
        pair_macs=pair,
    )


def _parts(trainer: AnchorTrainer | ClipAtTrainer | ZseTrainer) -> tuple[RetNetwork, int]:
    """The network of a training, and how many numbers it has with what is trained beside it."""
    if isinstance(trainer, ClipAtTrainer):
        to_text = trainer.network.to_text
        return trainer.start, _parameters(trainer.start) + (0 if to_text is None else _parameters(to_text))
    network = trainer.network.network if isinstance(trainer, AnchorTrainer) else trainer.network
    return network, _parameters(trainer.network)


@torch.no_grad()
def _inference(network: RetNetwork, *, compares_pairs: bool) -> tuple[int, int]:
    """Multiply-adds of one photo, and of one pair, by a network without values."""
    side = network.config.image_size
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        picture = torch.empty(1, 3, side, side)
        photo = network.encode(picture, "photo")
        photo_macs = counter.get_total_flops() // 2
        if not compares_pairs:
            return photo_macs, 0
        sketch = network.encode(picture, "sketch")
        encoded = counter.get_total_flops() // 2
        network.relate(network.project(sketch, "sketch"), network.project(photo, "photo"))
    return photo_macs, counter.get_total_flops() // 2 - encoded


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def blank_trainer(recipe: Recipe, folder: Path) -> AnchorTrainer | ClipAtTrainer | ZseTrainer:
    """A training by a recipe, of its last phase, with blank pictures and random weights."""
    if isinstance(recipe, AnchorRecipe):
        config, classes = recipe.config, recipe.batch
        width = min(_WORD_WIDTH, config.units)
        word = WordAnchors(torch.zeros(classes, width), torch.zeros(classes, 0, width))
        visual = VisualAnchors(*torch.zeros(2, classes, config.vit_width))
        anchors = SemanticAnchors(
            word if "word" in config.anchors else None, visual if "visual" in config.anchors else None
        )
        backbone = build_vit(config.backbone, config.image_size, config.sizes).state_dict()
        return AnchorTrainer(recipe, blank_pictures(classes), anchors, backbone, folder)
    if isinstance(recipe, ClipAtRecipe):
        if recipe.backbone == CLIP:
            raise ModelError(
                "the sizes of a CLIP are its checkpoint's; name a recipe on a ViT, such as clip-at/category"
            )
        side = int(recipe.network.get("image_size", SIDE))
        built = build_vit(recipe.backbone, side, recipe.sizes)
        vit = PretrainedVit(layout_of(built), side, built.state_dict(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        pairs = recipe.batch // recipe.categories
        classes, photos = (recipe.categories, pairs) if recipe.fine_grained else (recipe.batch, 1)
        texts = torch.ones(classes, _WORD_WIDTH)
        return ClipAtTrainer(recipe, blank_pictures(classes, photos), texts, vit, folder)
    assert isinstance(recipe, ZseRecipe)
    recipe = dataclasses.replace(recipe, phases=recipe.phases[-1:])
    wanted, batch = recipe.config(SIDE), recipe.batch
    sizes = VitSizes(wanted.width, wanted.depth, wanted.heads, wanted.mlp_ratio)
    classifier = {"head.weight": torch.zeros(_LABELS, wanted.width), "head.bias": torch.zeros(_LABELS)}
    backbone = build_vit("vit_tiny_patch16_224", SIDE, sizes).state_dict() | classifier
    data = blank_pictures(batch.classes, batch.photos, batch.further, batch.lines)
    return ZseTrainer(recipe, data, backbone, folder)


def blank_pictures(classes: int, photos: int = 1, further: int = 0, lines: int = 0) -> TrainingSet:
    """Blank pictures: of each class some photos with a sketch of each, two sketches of each further class, lines."""
    count = classes * photos
    rows = torch.arange(count).view(classes, photos)
    return TrainingSet(
        sketches=torch.zeros(count + 2 * further, 1, SIDE, SIDE, dtype=torch.uint8),
        photos=torch.zeros(count, 3, SIDE, SIDE, dtype=torch.uint8),
        sketch_rows=tuple(rows),
        photo_rows=tuple(rows),
        drawn_from=torch.cat([torch.arange(count), torch.full((2 * further,), -1)]),
        pairs=tuple(tuple((int(photo), photo.view(1)) for photo in of_class) for of_class in rows),
        lines=torch.zeros(lines, 1, SIDE, SIDE, dtype=torch.uint8),
        line_photos=torch.zeros(lines, dtype=torch.int64),
        further=tuple(f"further {number}" for number in range(further)),
        further_rows=tuple(count + 2 * number + torch.arange(2) for number in range(further)),
        key="",
    )


# Sketch-an-Anchor by its paper and on a ViT-Tiny. On a ViT-Tiny, too: ZSE-SBIR by its paper, the default network,
# CLIP-AT and ViT-Ret.
COMPARED = (
    "sketch-an-anchor/paper",
    "sketch-an-anchor/whole",
    "paper",
    "zero-shot",
    "clip-at/category",
    "ablations/vit-ret",
)


@dataclass(frozen=True)
class CostRow:
    """The costs of one recipe, whose name or file ``recipe`` is."""

    recipe: str
    costs: StepCosts


def measure_costs(recipes: Sequence[Path], report: Callable[[str], object]) -> Outcome:
    """Counts the costs of each recipe, of any method; nothing is trained, and no data is needed."""
    rows = []
    for recipe in recipes:
        report(f"{recipe}:")
        rows.append(CostRow(str(recipe), step_costs(recipe)))
    return Outcome(rows, _table(rows), partial(_draw, rows))


def _table(rows: Sequence[CostRow]) -> str:
    titles = (
        "recipe",
        "pixels",
        "parameters",
        "with what is only trained",
        "pictures a step",
        "a step, to its losses",
        "with gradients",
        "a photo",
        "a pair",
    )
    lines = [
        (
            row.recipe,
            str(found.image_size),
            *(f"{count / 1e6:.1f} M" for count in (found.parameters, found.trained_parameters)),
            str(found.pictures),
            *(f"{macs / 1e9:,.1f} G" for macs in (found.forward_macs, found.step_macs)),
            f"{found.photo_macs / 1e9:.2f} G",
            f"{found.pair_macs / 1e6:.1f} M" if found.pair_macs else "",
        )
        for row in rows
        for found in (row.costs,)
    ]
    return markdown(titles, lines)


def _draw(rows: Sequence[CostRow], picture: Path) -> None:
    """Draws parameters, a training step and a photo side by side."""
    figure = new_figure(9, 3.5)
    values = {
        "million parameters": [row.costs.parameters / 1e6 for row in rows],
        "10⁹ multiply-adds a step": [row.costs.step_macs / 1e9 for row in rows],
        "10⁹ multiply-adds a photo": [row.costs.photo_macs / 1e9 for row in rows],
    }
    names = [row.recipe for row in rows][::-1]
    for axes, (title, of_rows) in zip(figure.subplots(1, len(values), sharey=True), values.items(), strict=True):
        axes.bar_label(axes.barh(names, of_rows[::-1]), fmt="{:,.1f}", padding=3)
        axes.margins(x=0.25)
        axes.set(title=title)
    figure.savefig(picture)
