"""Teaches checkpoints which ink of a drawing belongs together, on sketches drawn together at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage
from torch import nn
from tqdm import tqdm

from sketch_search.model import Matcher, load
from sketch_search.model.engine import Floats, Parting, seen_classes
from sketch_search.model.engine.parting import HEADS, INK, SIDE, Labels, Pieces
from sketch_search.model.errors import ModelError
from sketch_search.model.images import Pixels, find_ink, open_image
from sketch_search.model.torch.checkpoint import load_zse_network
from sketch_search.training.corpus import Picture, data_folder, rows_by_label, stale_sketches
from sketch_search.training.papers.vocabulary import save_changed

# Drawings to train on: the share of single sketches, and how many things the others have, each with its share.
SINGLE, THINGS = 0.2, {2: 0.55, 3: 0.3, 4: 0.15}
# Of a drawing KEPT pieces are kept, and a step sees PIECES; chosen by `training evaluate --protocol parting`.
KEPT, EPOCHS, BATCH, PIECES, RATE, NOISE, DECAY, CLIP = 128, 7, 16, 96, 1e-3, 0.4, 0.1, 1.0
WIDTH, LAYERS, DIRECTION, DROPOUT = 128, 2, 32, 0.2
# Pieces count from this share of pixels of one thing on.
_PURE = 0.6
# Pixels of the paper's sides, the darkness of ink that counts, and the fewest such pixels of a thing.
_PAPER, _INK, _FEWEST = 512, 60, 120
# Sketches whose lines are wider than this are filled.
_FILLED = 32
Layers: TypeAlias = NDArray[np.uint8]


def give_parting(source: Path, target: Path, drawings: int) -> None:
    """Writes a checkpoint that divides drawings, trained on the classes that ``source`` has seen. Raises ModelError."""
    network, seen = load_zse_network(source), seen_classes(source)
    if seen is None:
        raise ModelError(f"{source} does not say which classes it was trained on; train it again")
    sketches = stale_sketches(data_folder(), seen.trained)
    of_class = [[sketches[row] for row in rows] for rows in rows_by_label(s.label for s in sketches).values()]
    matcher, examples = load(source), list[Example]()
    for number in tqdm(range(drawings), desc="drawing", unit="drawing", disable=None):
        composing, choosing = (np.random.default_rng([seed, number]) for seed in (0, 1))
        examples.append(encode_example(matcher, compose(of_class, composing)[0]).some(KEPT, choosing))
    parting = train_parting(examples, EPOCHS)
    save_changed(network.parting_replaced(parting), source, target, seen)
    print(f"wrote {target}: it divides drawings into things")


def compose(sketches: Sequence[Sequence[Picture]], chance: np.random.Generator) -> tuple[Layers, list[int]]:
    """Draws one to four sketches, given by class, on one paper: each's darkness, (n, 512, 512), 0 on paper, and class.

    Their sizes and places are random, and mostly they touch; they are mirrored, turned, and often drawn by one pen, and
    sometimes what is in front covers what is behind.
    """
    while True:
        count = 1 if chance.random() < SINGLE else int(chance.choice([*THINGS], p=[*THINGS.values()]))
        chosen = chance.integers(len(sketches), size=count).tolist()
        if count > 1 and chance.random() < 0.2:
            chosen = chosen[:1] * count
        pen = chance.uniform(3, 11) if chance.random() < 0.5 else None
        placed = zip((sketches[number] for number in chosen), _boxes(count, chance), strict=True)
        drawn = [_place(alike[int(chance.integers(len(alike)))], box, pen, chance) for alike, box in placed]
        if chance.random() < 0.15:
            for front in range(count - 1, 0, -1):
                # What lies within the outline, at half the paper's size.
                small = ndimage.maximum_filter(drawn[front], 4)[::2, ::2] > _INK
                filled = ndimage.binary_fill_holes(ndimage.binary_dilation(small, iterations=2))
                covered = filled.repeat(2, axis=0).repeat(2, axis=1)
                drawn[:front] = [np.where(covered, np.uint8(0), behind) for behind in drawn[:front]]
        layers = np.stack(drawn)
        if ((layers > _INK).sum(axis=(1, 2)) >= _FEWEST).all():
            return layers, chosen


def _boxes(count: int, chance: np.random.Generator) -> list[tuple[float, float, float]]:
    """Chooses places and sizes of things, as shares of the paper; two of three are put at another one."""
    boxes = list[tuple[float, float, float]]()
    for _ in range(count):
        size = float(chance.uniform(0.5, 0.95) if count == 1 else chance.uniform(0.4, 0.95))
        x, y = chance.uniform(0, 1, 2)
        if boxes:
            size = float(np.clip(boxes[0][2] * np.exp(chance.uniform(np.log(0.3), np.log(1.2))), 0.2, 0.95))
            if chance.random() < 0.7:
                left, top, other = boxes[chance.integers(len(boxes))]
                turn, far = chance.uniform(0, 2 * np.pi), chance.uniform(0.3, 1.2) * (other + size) / 2
                x, y = left + np.cos(turn) * far, top + np.sin(turn) * far
        x, y = np.clip((x, y), size / 2, 1 - size / 2)
        boxes.append((float(x), float(y), size))
    return boxes


def _place(sketch: Picture, box: tuple[float, float, float], pen: float | None, chance: np.random.Generator) -> Pixels:
    """Draws a sketch on an empty paper, its darkness: mirrored and turned at random, by a pen of this width if any."""
    darkness, (top, bottom, left, right) = find_ink(open_image(sketch.path, sketch=True))
    ink, (x, y, size) = Image.fromarray(darkness[top:bottom, left:right]), box
    wide = ink.width * np.exp(chance.normal(0, 0.12))
    scale = size * _PAPER / max(wide, ink.height)
    ink = ink.resize((max(8, round(wide * scale)), max(8, round(ink.height * scale))), Image.Resampling.LANCZOS)
    if chance.random() < 0.5:
        ink = ink.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if chance.random() < 0.3:
        ink = ink.rotate(chance.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)
    if pen is not None:
        framed = Image.new("L", (ink.width + 12, ink.height + 12))
        framed.paste(ink, (6, 6))
        ink = _redraw(framed, pen)
    paper = Image.new("L", (_PAPER, _PAPER))
    middles = (x, ink.width), (y, ink.height)
    left, top = (min(max(0, round(at * _PAPER - side / 2)), max(0, _PAPER - side)) for at, side in middles)
    paper.paste(ink, (left, top))
    return np.asarray(paper)


def _redraw(ink: Image.Image, pen: float) -> Image.Image:
    """Makes lines thicker or thinner, to about the width of a pen."""
    marked = np.asarray(ink) > 2 * _INK
    edge = marked & ~ndimage.binary_erosion(marked)
    width = 2 * marked.sum() / max(1, edge.sum())
    if width > _FILLED:
        return ink
    steps = round((pen - width) / 2)
    changed = ink
    for _ in range(min(abs(steps), 5)):
        changed = changed.filter(ImageFilter.MaxFilter(3) if steps > 0 else ImageFilter.MinFilter(3))
    return changed if (np.asarray(changed) > 2 * _INK).sum() > _FEWEST / 4 else ink


@dataclass(frozen=True)
class Example:
    """A drawing to train on, of k pieces: features (k, f) float16, centres (k, 2), pixels (k,), gaps (k, k) float16.

    things: (k,), the thing of each piece, or -1 if it is of several.
    """

    features: NDArray[np.float16]
    centres: Floats
    pixels: Floats
    gaps: NDArray[np.float16]
    things: Labels

    @staticmethod
    def of(patches: Floats, darkness: Pixels, owner: Labels) -> Example:
        """Cuts a square into pieces. patches: of the encoder. owner: the thing of each pixel, (SIDE, SIDE), or -1."""
        pieces = Pieces.of(darkness)
        marked = (pieces.labels >= 0) & (owner >= 0)
        counts = np.zeros((len(pieces), max(1, int(owner.max()) + 1)))
        np.add.at(counts, (pieces.labels[marked], owner[marked]), 1)
        things = np.where(counts.max(axis=1) >= _PURE * pieces.pixels, counts.argmax(axis=1), -1)
        features = pieces.features(patches).astype(np.float16)
        return Example(features, pieces.centres, pieces.pixels, pieces.gaps.astype(np.float16), things)

    def some(self, count: int, chance: np.random.Generator) -> Example:
        """Chooses so many pieces at random, or all of fewer."""
        chosen = chance.permutation(len(self.pixels))[:count]
        gaps = self.gaps[np.ix_(chosen, chosen)]
        rest = self.features[chosen], self.centres[chosen], self.pixels[chosen]
        return Example(*rest, gaps, self.things[chosen])


def encode_example(matcher: Matcher, layers: Layers) -> Example:
    """Prepares and encodes a drawing by the darkness of its things, (n, H, W)."""
    paper = Image.fromarray(255 - layers.max(axis=0)).convert("RGB")
    drawing = matcher.preprocessing.drawing(paper)
    _, patches = matcher.engine.encode_whole(matcher.preprocessing.normalise(drawing.whole)[None])
    darkness = drawing.darkness(SIDE)
    return Example.of(patches, darkness, np.where(darkness >= INK, drawing.owners(layers, SIDE), -1))


class PartingNetwork(nn.Module):
    """The network of ``sketch_search.model.engine.Parting``, over batches of drawings."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, WIDTH)
        layer = partial(nn.TransformerEncoderLayer, WIDTH, HEADS, 2 * WIDTH, DROPOUT, batch_first=True, norm_first=True)
        self.layers = nn.ModuleList(layer() for _ in range(LAYERS))
        self.last, self.direction = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, DIRECTION)
        self.pairs = nn.Parameter(torch.tensor([5.0, 0.0, 2.0, 2.0, 1.0]))

    def forward(
        self, features: torch.Tensor, centres: torch.Tensor, gaps: torch.Tensor, empty: torch.Tensor
    ) -> torch.Tensor:
        """Returns the logits (b, k, k) that two pieces belong to one thing. empty: (b, k), which are no pieces."""
        x = self.first(features)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=empty)
        directions = F.normalize(self.direction(self.last(x)), dim=-1)
        cosine, bias, distance, gap, connected = self.pairs
        logits: torch.Tensor = cosine * (directions @ directions.transpose(1, 2)) + bias
        logits = logits - gap * gaps + connected * (gaps == 0)
        logits -= distance * torch.cdist(centres, centres)
        return logits


def loss_of(network: PartingNetwork, examples: Sequence[Example]) -> torch.Tensor:
    """The mean of softplus(-logit) over pairs of one thing, plus that of softplus(logit) over pairs of two, halved.

    Pairs count by the roots of their pixels, and both kinds count alike in each drawing.
    """

    def stack(values: Sequence[NDArray[Any]], end: float = 0) -> torch.Tensor:
        tensors = [torch.from_numpy(value.astype(np.float32)) for value in values]
        return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=end)

    features, centres, pixels = (stack([vars(d)[name] for d in examples]) for name in ("features", "centres", "pixels"))
    pixels = pixels[..., None]
    things = stack([drawing.things for drawing in examples], -1)[..., None]
    ends = ((0, pixels.shape[1] - len(drawing.pixels)) for drawing in examples)
    gaps = torch.from_numpy(np.stack([np.pad(d.gaps, end) for d, end in zip(examples, ends, strict=True)])).float()
    noisy = features + NOISE * features.std() * torch.randn_like(features)
    logits = network(noisy, centres, gaps, pixels[..., 0] == 0)
    weight = (pixels * (things >= 0)).sqrt()
    pairs = weight * weight.transpose(1, 2) * (1 - torch.eye(pixels.shape[1]))
    alike = things == things.transpose(1, 2)
    loss = torch.zeros(len(examples))
    for sign, counted in ((-1, pairs * alike), (1, pairs * ~alike)):
        loss += (F.softplus(sign * logits) * counted).sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp_min(1e-6)
    return loss.mean() / 2


def train_parting(examples: Sequence[Example], epochs: int) -> Parting:
    """Trains on drawings. Raises ModelError for fewer than a batch."""
    usable = [drawing for drawing in examples if len(drawing.pixels) >= 2]
    if len(usable) < BATCH:
        raise ModelError(f"a parting needs at least {BATCH} drawings, not {len(usable)}")
    torch.manual_seed(0)
    chance = np.random.default_rng(0)
    network = PartingNetwork(usable[0].features.shape[1])
    matrices = [parameter for name, parameter in network.named_parameters() if name != "pairs"]
    decays = ((matrices, DECAY), ([network.pairs], 0.0))
    optimiser = torch.optim.AdamW([{"params": group, "weight_decay": decay} for group, decay in decays])
    steps = len(usable) // BATCH
    # Five numbers have farther to go than those of matrices.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [RATE, 20 * RATE], epochs * steps, pct_start=0.08)
    for _ in tqdm(range(epochs), desc="training", unit="epoch", disable=None):
        network.train()
        order = chance.permutation(len(usable))
        for step in range(steps):
            batch = [usable[number].some(PIECES, chance) for number in order[step * BATCH : (step + 1) * BATCH]]
            loss = loss_of(network, batch)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimiser.step()
            schedule.step()
    return Parting.of({name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()})
