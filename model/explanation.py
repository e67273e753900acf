"""Explains why a photo matches a sketch or another photo: attention, correspondences, influential pairs, rebuilding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from model.images import Pixels
from model.network import (
    BestMatchRelation,
    EncoderTrace,
    Modality,
    Network,
    RetNetwork,
    Tokens,
    averaged_variants,
    kernel_matrix,
)

# A token whose cosine to another token of its own photo is above this says nothing about its place. Networks keep a few
# tokens of this kind in fixed corners, for themselves. They are the same in every photo, and would match best of all.
_REPEATED = 0.97
# The weight of the whole sketch where the best patch for a part of it is chosen, and the side, in patches, of the
# square around a patch that is compared with the whole sketch. docs/research/figures.md says how both were chosen.
_RELEVANCE = 2.0
_AROUND = 3


@dataclass(frozen=True)
class SelfAttention:
    """The attention of one image's [Ret] in each block, and the tokens that each selection kept.

    Attributes:
        blocks: (depth, heads, grid, grid) float32, the attention of [Ret] to each patch token; zero if the token had
            been dropped. One head's map sums to 1 minus the attention of [Ret] to itself.
        kept: one (grid, grid) bool map for each selection, in order.
    """

    blocks: torch.Tensor
    kept: tuple[torch.Tensor, ...]

    @property
    def heads(self) -> torch.Tensor:
        """(heads, grid, grid): the last block, by head (Fig. 5)."""
        return self.blocks[-1]

    @property
    def layers(self) -> torch.Tensor:
        """(depth, grid, grid): each block, averaged over its heads; selection keeps the highest (eq. 7)."""
        return self.blocks.mean(dim=1)


@dataclass(frozen=True)
class Observed:
    """An encoded image, and the self-attention of its encoding.

    Attributes:
        tokens: a batch of one, on the network's device, as a search compares it.
        attention: self-attention and token selection, on the CPU.
        everything: the same with the tokens of all patches, where an encoder has more than a search compares.
        local: (1, n, d), the local [Ret] of these patches; None where ``everything`` is.
    """

    tokens: Tokens
    attention: SelfAttention
    everything: Tokens | None = None
    local: torch.Tensor | None = None


@dataclass(frozen=True)
class Explanation:
    """The explanation of one pair. Cells of the patch grid are counted row by row from the top left.

    All tensors are on the CPU. Where two photos are compared, the first one has the sketch's place.

    Attributes:
        grid: patches along one side.
        sketch, photo: self-attention and selection of each.
        sketch_cells, photo_cells: (n_s,) and (n_p,) int64, the cells of the patches that are compared: those whose
            tokens left the encoder; all patches of a two-sided network's photo, of which a search compares some.
        sketch_to_photo, photo_to_sketch: (heads, n_s, n_p) and (heads, n_p, n_s) cross-attention between patch
            tokens, None without cross-attention.
        ret_to_photo: (heads, n_p), cross-attention of the sketch's [Ret] to the photo's patch tokens, or None.
        ret_to_sketch: (heads, n_s), cross-attention of the photo's [Ret] to the sketch's patch tokens, or None.
        correspondence: (n_s, n_p) float32 in [-1, 1], cosines of patch tokens after cross-attention (eq. 8); of two
            photos see ``compare_photos``.
        relevance: (n_p,) float32, what is added to the cosines of each photo patch where the best one is chosen: more
            where [Ret] of the sketch is like the local [Ret] of the patch and its neighbours. None if it is not known.
        relation_score: in (0, 1), as in a search; None for two photos, and if the relation network is untrained.
        ret_distance: distance of the [Ret] tokens; see ``Network.ret_distances`` for its range.
    """

    grid: int
    sketch: SelfAttention
    photo: SelfAttention
    sketch_cells: torch.Tensor
    photo_cells: torch.Tensor
    correspondence: torch.Tensor
    ret_distance: float
    relevance: torch.Tensor | None = None
    relation_score: float | None = None
    sketch_to_photo: torch.Tensor | None = None
    photo_to_sketch: torch.Tensor | None = None
    ret_to_photo: torch.Tensor | None = None
    ret_to_sketch: torch.Tensor | None = None

    def best(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Finds the best photo patch for each sketch patch: its cosine (n_s,) float32, and its place (n_s,) int64.

        The best has the largest sum of its cosine and ``relevance``. At least one patch of each image must be compared.
        """
        cosines = self.correspondence
        places = (cosines if self.relevance is None else cosines + self.relevance).argmax(dim=1)
        return cosines.gather(1, places[:, None])[:, 0], places

    def matches(self) -> list[tuple[int, int, float]]:
        """Lists the best photo patch for each sketch patch: (sketch cell, photo cell, cosine), strongest first.

        The list is empty if no patches are compared.
        """
        if not self.correspondence.numel():
            return []
        cosines, places = self.best()
        order = cosines.argsort(descending=True, stable=True).tolist()
        return [(int(self.sketch_cells[i]), int(self.photo_cells[places[i]]), float(cosines[i])) for i in order]


@torch.inference_mode()
def observe(network: RetNetwork, variants: torch.Tensor, modality: Modality) -> Observed:
    """Encodes one image and records its attention.

    variants: (v, 3, H, W), the prepared image, on the network's device. For a sketch, further variants may follow
    (``sketch_variants``), which affect only [Ret].
    """
    trace = EncoderTrace()
    tokens = averaged_variants(network.encode(variants, modality, trace))
    area = network.config.grid**2
    blocks = torch.zeros(len(trace.attention), trace.attention[0].shape[1], area)
    for block, attention, positions in zip(blocks, trace.attention, trace.positions, strict=True):
        block[:, positions[0].cpu()] = attention[0].cpu()
    kept = []
    for cells in trace.kept:
        mask = torch.zeros(area, dtype=torch.bool)
        mask[cells[0].cpu()] = True
        kept.append(mask.reshape(network.config.grid, -1))
    seen = SelfAttention(blocks.reshape(*blocks.shape[:2], network.config.grid, -1), tuple(kept))
    return Observed(tokens, seen, trace.everything, trace.local)


@torch.inference_mode()
def compare(network: RetNetwork, sketch: Observed, photo: Observed) -> Explanation:
    """Explains a pair of observed images.

    The score is that of a search; all else is of all patches that are there to be compared. A network with one vector
    for each picture compares no patches. Then there are no cells and no correspondences.
    """
    forth = back = score = None
    s_out, p_out = sketch.tokens, photo.tokens if photo.everything is None else photo.everything
    if isinstance(network, Network):
        s_side, p_side = network.project(s_out, "sketch"), network.project(p_out, "photo")
        forth, back = (weights[0].cpu() for weights in network.cross.attention(s_side, p_side))
        s_out, p_out = network.align(s_side, p_side)
        if network.calibration.relation_trained:
            score = float(network.relate(s_side, network.project(photo.tokens, "photo")).sigmoid())
    return Explanation(
        grid=network.config.grid,
        sketch=sketch.attention,
        photo=photo.attention,
        sketch_cells=s_out.positions[0].cpu(),
        photo_cells=p_out.positions[0].cpu(),
        sketch_to_photo=None if forth is None else forth[:, 1:, 1:],
        photo_to_sketch=None if back is None else back[:, 1:, 1:],
        ret_to_photo=None if forth is None else forth[:, 0, 1:],
        ret_to_sketch=None if back is None else back[:, 0, 1:],
        correspondence=kernel_matrix(s_out.patches, p_out.patches)[0].cpu(),
        relevance=None if photo.local is None else _relevance(sketch.tokens.ret[0], photo.local[0]).cpu(),
        relation_score=score,
        ret_distance=float(network.ret_distances(sketch.tokens, photo.tokens)),
    )


def _relevance(sketch: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    """Computes how much to prefer each of n patches of a photo, (n,) float32, from their local [Ret] (n, d)."""
    cosines = local @ F.normalize(sketch.float(), dim=-1)
    side = math.isqrt(len(cosines))
    around = F.avg_pool2d(cosines.view(1, side, side), _AROUND, 1, _AROUND // 2, count_include_pad=False)
    return _RELEVANCE * around.flatten()


@torch.inference_mode()
def compare_photos(liked: Observed, photo: Observed) -> Explanation:
    """Explains why a photo is like another one.

    Searches compare photos by [Ret] alone, so cross-attention and relation network are not used. Patch tokens are
    compared as they left the encoder, because there the tokens of two photos correspond better than after a
    cross-attention that was trained for sketches. The mean of all tokens is subtracted, and tokens that are repeated
    within a photo are left out. ``ret_distance`` is the distance of the two normalised [Ret], without a prior.
    """
    first, second = (F.normalize(seen.tokens.ret.float(), dim=-1) for seen in (liked, photo))
    here, there = (_distinct(seen.tokens) for seen in (liked, photo))
    mean = torch.cat([liked.tokens.patches, photo.tokens.patches], dim=1).mean(dim=1, keepdim=True)
    cosines = kernel_matrix(liked.tokens.patches - mean, photo.tokens.patches - mean)[0]
    return Explanation(
        grid=liked.attention.blocks.shape[-1],
        sketch=liked.attention,
        photo=photo.attention,
        sketch_cells=liked.tokens.positions[0, here].cpu(),
        photo_cells=photo.tokens.positions[0, there].cpu(),
        correspondence=cosines[here][:, there].cpu(),
        ret_distance=float((first - second).norm()),
    )


def explain(network: RetNetwork, sketch: torch.Tensor, photo: torch.Tensor) -> Explanation:
    """Explains a pair of prepared images, each as ``observe`` takes it."""
    return compare(network, observe(network, sketch, "sketch"), observe(network, photo, "photo"))


def _distinct(tokens: Tokens) -> torch.Tensor:
    """Finds the patch tokens of one image that are not repeated in it, (m,) int64; all of them if all are repeated."""
    if not tokens.patches.shape[1]:
        return torch.empty(0, dtype=torch.int64, device=tokens.features.device)
    cosines = kernel_matrix(tokens.patches, tokens.patches)[0].fill_diagonal_(-1)
    distinct = cosines.amax(dim=1) <= _REPEATED
    return (distinct if distinct.any() else torch.ones_like(distinct)).nonzero()[:, 0]


STRONGEST = 10


@dataclass(frozen=True)
class PairInfluence:
    """A pair of patch tokens, given by their cells, and the share of the relation score that is lost without it.

    drop: (score - score without the pair) / score; at most 1, below 0 if the pair lowers the score.
    """

    sketch_cell: int
    photo_cell: int
    drop: float


@torch.inference_mode()
def influential_pairs(
    network: RetNetwork, sketch: Tokens, photo: Tokens, count: int = STRONGEST
) -> tuple[PairInfluence, ...]:
    """Finds the pairs whose removal lowers the relation score most, strongest first. Other pairs are left out.

    Args:
        sketch, photo: one image each, as encoded, on the network's device.
        count: how many at most.

    Returns no pairs if the relation network is untrained, or is the paper's, which compares blocks of patches.
    """
    if not isinstance(network, Network) or not network.calibration.relation_trained:
        return ()
    if not isinstance(network.relation, BestMatchRelation):
        return ()
    s_side, p_side = network.project(sketch, "sketch"), network.project(photo, "photo")
    s_out, p_out = network.align(s_side, p_side)
    logit = network.relation(s_out, p_out)
    # The [Ret] term of the logit does not depend on the pairs.
    added = network.relation_logits(s_out, p_out, s_side, p_side) - logit
    without = logits_without_each(network.relation, s_out, p_out)
    drops = (1 - (without + added).double().sigmoid() / (logit + added).double().sigmoid()).cpu()
    order = drops.flatten().argsort(descending=True, stable=True)[:count].tolist()
    found = []
    for row, column in (divmod(place, drops.shape[1]) for place in order):
        if drops[row, column] <= 0:
            break
        pair = int(s_out.positions[0, row]), int(p_out.positions[0, column])
        found.append(PairInfluence(*pair, float(drops[row, column])))
    return tuple(found)


@torch.inference_mode()
def logits_without_each(relation: BestMatchRelation, sketch: Tokens, photo: Tokens) -> torch.Tensor:
    """Computes the relation logits without each pair in turn, (n_s, n_p) float32. The next best match, or 0, counts.

    sketch, photo: one image each, after cross-attention.
    """
    kernel = relation.kernel(sketch, photo)[0]
    weights = relation.token_weights(sketch, photo)
    # A pair counts only if it is the best of its row or column. Without it, the next best pair counts.
    by_row, by_column = (_lost(k, weight[0]) for k, weight in zip((kernel, kernel.T), weights, strict=True))
    logits: torch.Tensor = relation(sketch, photo) - relation.scale / 2 * (by_row + by_column.T)
    return logits


def _lost(kernel: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Computes how much the weighted sum of row maxima falls without each entry, (n, m). weight: (n,), of the rows."""
    if kernel.shape[1] == 1:
        # There is no next best match: a removed entry counts as 0.
        return weight[:, None] * kernel
    best, places = kernel.topk(2, dim=1)
    return torch.zeros_like(kernel).scatter(1, places[:, :1], (weight * (best[:, 0] - best[:, 1]))[:, None])


# The colour, white, of those cells of the sketch whose token was dropped.
_PAPER = 255


@dataclass(frozen=True)
class Patch:
    """A patch of a photo: the photo's index or id, and the cell."""

    photo: int
    cell: int


@dataclass(frozen=True)
class Replacement:
    """The patches that replace the sketch patch at ``cell``, best first; several are averaged."""

    cell: int
    patches: tuple[Patch, ...]


def closest_patches(explanations: Sequence[Explanation]) -> list[Replacement]:
    """Finds for each kept sketch patch the closest patch among all these photos, after cross-attention (eq. 8).

    explanations: of one sketch and at least one photo. A patch names its photo by its index among them; of equally
    close photos the first is taken. There are no replacements if no patches are compared.
    """
    if not explanations[0].correspondence.numel():
        return []
    found = [e.best() for e in explanations]
    photos = torch.stack([cosines for cosines, _ in found]).argmax(dim=0).tolist()
    return [
        Replacement(int(cell), (Patch(n, int(explanations[n].photo_cells[found[n][1][i]])),))
        for i, (cell, n) in enumerate(zip(explanations[0].sketch_cells, photos, strict=True))
    ]


class NearestPatches:
    """The nearest patches among many photos, by the cosine of tokens as they left the encoder.

    Photos are added in chunks and not kept. The cross-attention is not used, because it would take a pass for each
    photo.
    """

    def __init__(self, sketch: Tokens, count: int) -> None:
        """``sketch``: a batch of one; ``count``: patches kept for each of its tokens, at least 1."""
        self._cells = sketch.positions[0].cpu()
        self._tokens = F.normalize(sketch.patches[0].float(), dim=-1)
        self._count = count
        n = len(self._tokens)
        device = self._tokens.device
        self._cosines = torch.empty(n, 0, device=device)
        self._photos, self._positions = (torch.empty(n, 0, dtype=torch.int64, device=device) for _ in range(2))

    def add(self, ids: NDArray[np.int64], photos: Tokens) -> None:
        """Adds photos with ids (m,). Of equally near patches, those that were added first are kept."""
        device = self._tokens.device
        tokens = F.normalize(photos.patches.to(device, torch.float32), dim=-1)
        m, per_photo = tokens.shape[:2]
        cosines = self._tokens @ tokens.flatten(0, 1).T
        owners = torch.from_numpy(ids).to(device).repeat_interleave(per_photo)
        self._merge(cosines, owners, photos.positions.to(device).reshape(m * per_photo))

    def found(self) -> list[tuple[int, tuple[Patch, ...]]]:
        """Returns for each sketch token its cell and at most ``count`` patches, nearest first."""
        rows = zip(self._cells.tolist(), self._photos.tolist(), self._positions.tolist(), strict=True)
        return [(cell, tuple(Patch(*p) for p in zip(ids, cells, strict=True))) for cell, ids, cells in rows]

    def _merge(self, cosines: torch.Tensor, owners: torch.Tensor, positions: torch.Tensor) -> None:
        count = min(self._count, cosines.shape[1])
        best, index = cosines.topk(count, dim=1)
        merged = torch.cat([self._cosines, best], dim=1)
        order = merged.argsort(dim=1, descending=True, stable=True)[:, : self._count]
        self._cosines = merged.gather(1, order)
        self._photos = torch.cat([self._photos, owners[index]], dim=1).gather(1, order)
        self._positions = torch.cat([self._positions, positions[index]], dim=1).gather(1, order)


def nearest_replacements(
    found: Iterable[tuple[int, tuple[Patch, ...]]], count: int, square: Callable[[int], Pixels | None], grid: int
) -> tuple[list[Replacement], dict[Patch, Pixels]]:
    """Chooses the ``count`` nearest patches whose photos still exist, and cuts out their pixels.

    Args:
        found: from ``NearestPatches.found``, with more than ``count`` patches, in case photos are gone.
        square: gives the prepared square of a photo by its id, or None if the photo is gone. It is called once for
            each photo, and the square is not kept.
        grid: patches along one side.

    Returns a replacement for each sketch patch that has any patches left, and the pixels of all patches in them.
    """
    candidates = list(found)
    gone: set[int] = set()
    pixels: dict[Patch, Pixels] = {}
    while True:
        chosen = [(cell, tuple(p for p in patches if p.photo not in gone)[:count]) for cell, patches in candidates]
        wanted = {patch for _, patches in chosen for patch in patches} - pixels.keys()
        if not wanted:
            return [Replacement(cell, patches) for cell, patches in chosen if patches], pixels
        for photo in sorted({patch.photo for patch in wanted}):
            seen = square(photo)
            if seen is None:
                gone.add(photo)
                continue
            # These are all patches of this photo that a later round may need, so that it is opened only once.
            mine = {p for _, patches in candidates for p in patches if p.photo == photo}
            pixels |= {patch: cut(seen, patch.cell, grid) for patch in mine}


def cut(square: Pixels, cell: int, grid: int) -> Pixels:
    """Copies the patch (side, side, 3) at ``cell`` of a prepared square (grid*side, grid*side, 3)."""
    side = len(square) // grid
    top, left = cell // grid * side, cell % grid * side
    return square[top : top + side, left : left + side].copy()


def assembled(replacements: Iterable[Replacement], pixels: Mapping[Patch, Pixels], grid: int, side: int) -> Image.Image:
    """Draws the sketch with its patches replaced, (grid*side, grid*side) RGB; white at cells without a kept token.

    pixels: of every patch, (side, side, 3) uint8.
    """
    canvas = np.full((grid * side, grid * side, 3), _PAPER, np.uint8)
    for replacement in replacements:
        top, left = replacement.cell // grid * side, replacement.cell % grid * side
        patches = np.stack([pixels[patch] for patch in replacement.patches])
        canvas[top : top + side, left : left + side] = np.rint(patches.mean(axis=0))
    return Image.fromarray(canvas)


def from_photos(explanations: Sequence[Explanation], squares: Sequence[Pixels]) -> Image.Image:
    """Rebuilds the sketch from the closest patches among all these photos (Fig. 7a).

    squares: for each photo the prepared pixels (H, W, 3) uint8 that the network saw.
    """
    grid = explanations[0].grid
    replacements = closest_patches(explanations)
    pixels = {patch: cut(squares[patch.photo], patch.cell, grid) for r in replacements for patch in r.patches}
    return assembled(replacements, pixels, grid, len(squares[0]) // grid)
