"""The losses of CLIP-AT. Vectors are compared by the cosine distance, 1 - cos(a, b)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

# The points at which densities of relative distances are computed: they span all values that these can have.
_POINTS = torch.linspace(-2, 2, 81)


def cosine_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(..., d), (..., d) -> (...), 1 - cos: in [0, 2]."""
    return 1 - F.cosine_similarity(a, b, dim=-1)


def triplet_loss(sketches: torch.Tensor, right: torch.Tensor, wrong: torch.Tensor, margin: float) -> torch.Tensor:
    """The mean of max(0, margin + distance(s, p+) - distance(s, p-)) over the rows of three (n, d)."""
    return (margin + cosine_distance(sketches, right) - cosine_distance(sketches, wrong)).clamp(min=0).mean()


def classification_loss(
    vectors: torch.Tensor, labels: torch.Tensor, texts: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The cross-entropy of each picture's class among the text vectors of all training classes.

    vectors: (n, d). labels: (n,) int64, their classes. texts: (c, d), L2-normalised.
    """
    return F.cross_entropy(F.normalize(vectors, dim=1) @ texts.T / temperature, labels)


def category_distances(sketches: torch.Tensor, photos: torch.Tensor) -> torch.Tensor:
    """Pairs of c categories, (c, k, d) each -> (c, k, k), the distance of each sketch to all photos of its category."""
    return 1 - F.normalize(sketches, dim=2) @ F.normalize(photos, dim=2).transpose(1, 2)


def hard_triplet_loss(distances: torch.Tensor, margin: float) -> torch.Tensor:
    """The triplet loss within each category, where p- is the nearest photo that the sketch was not drawn from.

    distances: (c, k, k) from ``category_distances``; those of pairs stand on the diagonals.
    """
    own = torch.eye(distances.shape[1], dtype=torch.bool)
    nearest = distances.masked_fill(own, torch.inf).amin(dim=2)
    return (margin + distances.diagonal(dim1=1, dim2=2) - nearest).clamp(min=0).mean()


def relative_distances(distances: torch.Tensor) -> torch.Tensor:
    """(c, k, k) -> (c, k (k - 1)): distance(s, p+) - distance(s, p-) of all triplets of each category (C)."""
    c, k, _ = distances.shape
    relative = distances.diagonal(dim1=1, dim2=2)[:, :, None] - distances
    return relative[:, ~torch.eye(k, dtype=torch.bool)].reshape(c, k * (k - 1))


def log_densities(relative: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """(c, m) relative distances -> (c, points), log-probabilities: a sum of normal kernels at points in [-2, 2]."""
    gaps = (_POINTS[None, :, None] - relative[:, None, :]) / bandwidth
    return (-gaps.square() / 2).logsumexp(dim=2).log_softmax(dim=1)


def log_softmaxes(relative: torch.Tensor) -> torch.Tensor:
    """(c, m) relative distances -> (c, m), log-probabilities: the softmax of the distances in ascending order."""
    return relative.sort(dim=1).values.log_softmax(dim=1)


def average_divergence(logs: torch.Tensor) -> torch.Tensor:
    """1 / (c (c - 1)) sum_i sum_j KL(D_i, D_j) over categories (C, eq. 1).

    logs: (c, m), the log-probabilities of the distributions; c at least 2.
    """
    count = len(logs)
    # KL(D_i, D_j) = sum D_i log D_i - sum D_i log D_j
    negentropy = (logs.exp() * logs).sum(dim=1, keepdim=True)
    return (negentropy - logs.exp() @ logs.T).sum() / (count * (count - 1))


def shuffled(images: torch.Tensor, orders: torch.Tensor) -> torch.Tensor:
    """Pictures whose patches were put in another order.

    images: (b, c, H, W). orders: (b, g * g) int64, a permutation for each: the patch at place i, counted row by row, is
    the one that was at ``orders[:, i]``. H and W are multiples of g.
    """
    b, c, height, width = images.shape
    grid = round(orders.shape[1] ** 0.5)
    patches = images.reshape(b, c, grid, height // grid, grid, width // grid).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    moved = patches[torch.arange(b)[:, None], orders]
    whole = moved.reshape(b, grid, grid, c, height // grid, width // grid).permute(0, 3, 1, 4, 2, 5)
    return whole.reshape(b, c, height, width)


def different_orders(count: int, grid: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Two permutations (count, grid * grid) for each of ``count`` pairs; the two of a pair are never the same."""
    cells = grid * grid
    first = torch.rand(count, cells, generator=generator).argsort(dim=1)
    second = torch.rand(count, cells, generator=generator).argsort(dim=1)
    same = (first == second).all(dim=1)
    # Turned by one place, an order is another one.
    return first, torch.where(same[:, None], second.roll(1, dims=1), second)
