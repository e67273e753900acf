"""Makes the photo side of two-sided networks, once for all: pretrained ViTs and a fitted projection of photos."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from sketch_search.model import torch as network
from sketch_search.model.engine import TWO_SIDED, Modality, TwoSidedConfig, from_json
from sketch_search.model.engine.graphs import BLOCK_PARAMETERS
from sketch_search.model.errors import ModelError
from sketch_search.model.images import Preprocessing
from sketch_search.model.torch.checkpoint import save_photo_side
from sketch_search.training.corpus import data_folder, read_data, read_imagenet, read_split
from sketch_search.training.papers.pictures import normalize, prepare_pixels
from sketch_search.training.papers.trainer import CPU

# The ViT that sees photos alone was trained with this mean and spread of pixels.
_SECOND_MEAN = _SECOND_STD = 0.5
# Photos encoded at once, every _EVERY_PATCH-th of whose patches is kept for the principal components.
_PHOTOS, _EVERY_PATCH = 16, 5
# The fit of the projection: steps, photos of each step, and learning rates; the sharpness of likenesses and of classes.
_STEPS, _BATCH, _RATE, _CLASS_RATE = 250, 512, 3e-3, 1e-2
_LIKENESS, _CLASS = 10.0, 10.0
# Weights of the losses of classes, by the folders' names and by the classifier, beside the loss of likeness.
_LABELS, _BELIEFS = 0.3, 0.3
_SQUARES = 50.0
# The ridge of the map with which a sketch side begins, as a share of the spread of the map's inputs.
_RIDGE = 1e-4


def make_photo_side(encoder: str, second: str | None, target: Path, device: torch.device = CPU) -> None:
    """Writes a photo side fitted on training classes and ImageNet-1k alone, so that one serves all networks.

    second: a ViT for photos alone with a classifier, a file or a timm tag, as deep as the first; None for none.
    """
    vit = read_vit(encoder)
    fields = fields_of(vit, encoder, second is not None)
    config = from_json(TwoSidedConfig, json.dumps({**asdict(TWO_SIDED), **fields}), f"the network on {encoder}")
    tensors = vit_tensors(vit.weights, network.main_layout(config), config.image_size)
    classifier: tuple[torch.Tensor, torch.Tensor] | None = None
    notes = {"encoder": Path(encoder).name, "second": "none" if second is None else Path(second).name}
    if second is not None:
        others = network.read_backbone(second)
        beside = vit_tensors(others, network.second_layout(config), config.image_size, "second_")
        tensors |= renormalise(beside, "second_", config.mean, config.std)
        classifier = others["head.weight"].float(), others["head.bias"].float()
    data = data_folder()
    photos = read_data(data).of(read_split(data, "train")).photos
    more, look = read_imagenet(data).photos, Preprocessing(config.image_size, config.mean, config.std)
    pixels = prepare_pixels((*photos, *more), "photo", look)
    features = photo_features(config, tensors, pixels, classifier, device)
    numbers = np.unique([photo.label for photo in photos], return_inverse=True)[1]
    known = torch.tensor([*numbers.tolist(), *[-1] * len(more)])
    tensors |= {f"head.{name}": value for name, value in fit_head(features, known, config.width).items()}
    if fields:
        notes["network"] = json.dumps(fields)
    sha256 = save_photo_side(tensors, target, notes)
    print(f"wrote {target}, {sha256[:12]}...: fitted on {len(pixels):,} photos")


def read_vit(source: str) -> network.PretrainedVit:
    """Reads a ViT: "timm:NAME", "clip:MODEL", or a file under timm's names, also int8. Raises ModelError."""
    kind, _, name = source.partition(":")
    if kind == "clip":
        return network.read_clip(name).encoder
    size, mean, std = TWO_SIDED.image_size, TWO_SIDED.mean, TWO_SIDED.std
    weights = network.read_backbone(name if kind == "timm" else source)
    if kind != "timm":
        return network.PretrainedVit(network.layout_of(weights), size, weights, mean, std)
    from timm.models import get_pretrained_cfg

    if (known := get_pretrained_cfg(name, allow_unregistered=True)) is not None:
        mean, std = (known.mean[0], known.mean[1], known.mean[2]), (known.std[0], known.std[1], known.std[2])
    return network.PretrainedVit(network.vit_layout(name.partition(".")[0], size), size, weights, mean, std)


def fields_of(vit: network.PretrainedVit, name: str, second: bool) -> dict[str, Any]:
    """Finds the fields by which the configuration of a network on this ViT differs from TWO_SIDED."""
    base, layout = TWO_SIDED, vit.layout
    grid = base.image_size // layout.patch_size
    drawn = round(grid * base.sketch_size / base.image_size)

    def keep_rate(modality: Modality, side: int) -> float:
        return math.floor(1e4 * min(1.0, (base.token_count(modality) - 1) / side**2)) / 1e4

    fields: dict[str, Any] = {
        "image_size": grid * layout.patch_size,
        "sketch_size": drawn * layout.patch_size,
        "patch_size": layout.patch_size,
        "encoder_width": layout.width,
        "depth": layout.depth,
        "heads": layout.heads,
        "mlp_ratio": layout.mlp_width / layout.width,
        "norm_eps": layout.norm_eps,
        "keep_photo": keep_rate("photo", grid),
        "keep_sketch": keep_rate("sketch", drawn),
        "pre_norm": layout.clip,
        "quick_gelu": layout.quick_gelu,
        "mean": tuple(vit.mean),
        "std": tuple(vit.std),
        "second_width": base.second_width if second else 0,
    }
    differing = {field: value for field, value in fields.items() if value != getattr(base, field)}
    return {"name": f"two-sided on {name}", **differing} if differing else {}


def photo_features(
    config: TwoSidedConfig,
    tensors: Mapping[str, torch.Tensor],
    pixels: torch.Tensor,
    classifier: tuple[torch.Tensor, torch.Tensor] | None,
    device: torch.device = CPU,
) -> "PhotoFeatures":
    """Runs the ViTs of a photo side, ``tensors``, over photos, (n, 3, H, W) uint8. classifier: of the second ViT."""
    side = network.PhotoSide(config)
    side.load_state_dict(tensors, strict=False)
    side.set_precision(torch.bfloat16 if device != CPU or network.multiplies_bf16() else torch.float32)
    side.to(device)
    kept = config.token_count("photo") - 1
    parts: list[tuple[torch.Tensor, ...]] = []
    with torch.inference_mode():
        for start in tqdm(range(0, len(pixels), _PHOTOS), desc="looking at photos", disable=None):
            images = normalize(pixels[start : start + _PHOTOS], config).to(device)
            x, importance = side.vit(images, side.tuning)
            y = side.second(images).cpu()
            best = importance.topk(kept, dim=1).indices
            patches = x[:, 1:].take_along_dim(best[..., None], dim=1).flatten(0, 1)
            beliefs = y[:, :0] if classifier is None else F.linear(y, *classifier).log_softmax(dim=1)
            parts.append((x[:, 0].cpu(), y, x[:, 1:].mean(dim=1).cpu(), beliefs, patches[::_EVERY_PATCH].cpu()))
    return PhotoFeatures(*(torch.cat(column) for column in zip(*parts, strict=True)))


def vit_tensors(
    weights: Mapping[str, torch.Tensor], layout: network.VitLayout, image_size: int, prefix: str = ""
) -> dict[str, torch.Tensor]:
    """Makes tensors of `FrozenVit` and `Tuning` from timm's names; prefix: "" or "second_". Raises ModelError."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    def weight_of(name: str) -> torch.Tensor:
        value, scale = weights[name].float(), weights.get(f"{name}.scale")
        return value if scale is None else value * scale.float()[:, None]

    bias = "patch_embed.proj.bias"
    try:
        blocks = range(layout.depth)
        tensors = {
            f"{prefix}vit.{ours}": torch.stack([weight_of(f"blocks.{block}.{name}") for block in blocks])
            for ours, name in network.BLOCK_MATRICES.items()
        }
        for ours, name in BLOCK_PARAMETERS.items():
            scaled = ours.startswith("scale") and f"blocks.0.{name}" not in weights
            values = [torch.ones(layout.width) if scaled else weight_of(f"blocks.{block}.{name}") for block in blocks]
            tensors[f"{prefix}tuning.{ours}"] = torch.stack(values)
        position = resample_abs_pos_embed(weight_of("pos_embed"), [image_size // layout.patch_size] * 2)
        tensors |= {
            f"{prefix}vit.patch_kernel": weight_of("patch_embed.proj.weight"),
            f"{prefix}vit.class_token": weight_of("cls_token").flatten(),
            f"{prefix}vit.position": position[0],
            f"{prefix}tuning.patch_bias": weight_of(bias) if bias in weights else torch.zeros(layout.width),
            f"{prefix}tuning.norm_weight": weight_of("norm.weight"),
            f"{prefix}tuning.norm_bias": weight_of("norm.bias"),
        }
        if layout.clip:
            tensors[f"{prefix}vit.pre_norm"] = torch.stack([weight_of("norm_pre.weight"), weight_of("norm_pre.bias")])
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"these are not the weights of a ViT with {layout.depth} blocks: {error}") from error
    if tensors[f"{prefix}vit.qkv"].shape != (layout.depth, 3 * layout.width, layout.width):
        shape = tuple(tensors[f"{prefix}vit.qkv"].shape)
        raise ModelError(f"the ViT's matrices are {shape}, not of width {layout.width}")
    return tensors


def renormalise(
    tensors: dict[str, torch.Tensor], prefix: str, mean: Sequence[float], std: Sequence[float]
) -> dict[str, torch.Tensor]:
    """Adapts the second ViT's patch embedding to pixels that are normalised for the first ViT."""
    kernel = tensors[f"{prefix}vit.patch_kernel"]
    shift = (torch.tensor(mean) - _SECOND_MEAN) / _SECOND_STD
    bias = tensors[f"{prefix}tuning.patch_bias"] + (kernel.sum(dim=(2, 3)) @ shift)
    kernel = kernel * (torch.tensor(std) / _SECOND_STD).view(1, 3, 1, 1)
    return tensors | {f"{prefix}vit.patch_kernel": kernel, f"{prefix}tuning.patch_bias": bias}


@dataclass(frozen=True)
class PhotoFeatures:
    """Outputs of both ViTs, float32: class tokens (n, w_1), (n, w_2), mean patches (n, w_1);

    beliefs: (n, k), log-probabilities by the second; patches: (m, w_1) of all photos together.
    """

    first: torch.Tensor
    second: torch.Tensor
    mean: torch.Tensor
    beliefs: torch.Tensor
    patches: torch.Tensor


def fit_head(features: PhotoFeatures, labels: torch.Tensor, width: int) -> dict[str, torch.Tensor]:
    """Fits a `PhotoHead`: [Ret] with both class tokens' likeness, classes (n,), -1 if unknown, and beliefs.

    Tokens are projected by principal components, whose spreads are halfway evened out.
    """
    a, b = F.normalize(features.first, dim=1), F.normalize(features.second, dim=1)
    mean, second_mean = a.mean(dim=0), b.mean(dim=0)
    both = torch.cat([F.normalize(a - mean, dim=1), F.normalize(b - second_mean, dim=1)], dim=1)
    # Without a second ViT the first one's class token alone has length 1.
    alike = F.normalize(both, dim=1)
    classes, known = int(labels.max()) + 1, features.beliefs.shape[1]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        ret = nn.Parameter(_find_components(both, width).T.contiguous())
        centre = nn.Parameter(F.normalize(both @ ret.detach().T, dim=1).mean(dim=0))
        anchors = nn.Parameter(torch.randn(max(classes, 1), width) * 0.05)
        words = nn.Linear(width, max(known, 1))
        classes_of = [anchors, *words.parameters()]
        groups = [{"params": [ret, centre], "lr": _RATE}, {"params": classes_of, "lr": _CLASS_RATE}]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
        fall = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: (1 + math.cos(math.pi * step / _STEPS)) / 2)
        for _ in range(_STEPS):
            rows = torch.randint(len(both), (min(_BATCH, len(both)),))
            vectors = F.normalize(F.normalize(F.linear(both[rows], ret), dim=1) - centre, dim=1)
            loss = _likeness_loss(vectors @ vectors.T, alike[rows] @ alike[rows].T)
            if classes and bool((labels[rows] >= 0).any()):
                logits = _CLASS * vectors @ F.normalize(anchors, dim=1).T
                loss = loss + _LABELS * F.cross_entropy(logits, labels[rows], ignore_index=-1)
            if known:
                believed = words(_CLASS * vectors).log_softmax(dim=1)
                target = features.beliefs[rows]
                loss = loss + _BELIEFS * F.kl_div(believed, target, reduction="batchmean", log_target=True)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            fall.step()
    with torch.no_grad():
        goals = F.normalize(F.normalize(F.linear(both, ret), dim=1) - centre, dim=1)
        # A ridge regression of centred rows, scaled to results of length 1.
        inputs = torch.cat([a, F.normalize(features.mean, dim=1)], dim=1)
        x, y = inputs - inputs.mean(dim=0), goals - goals.mean(dim=0)
        covariance = x.T @ x / len(x)
        ridge = _RIDGE * covariance.diagonal().sum() * torch.eye(x.shape[1])
        from_first = torch.linalg.solve(covariance + ridge, x.T @ y / len(x))
        from_first /= (x @ from_first).norm(dim=1).mean()
    axes = _find_components(features.patches, width)
    patch_mean = features.patches.mean(dim=0)
    spread = ((features.patches - patch_mean) @ axes).std(dim=0)
    tokens = axes * (spread[0] / spread).sqrt() / (3 * spread[0])
    return {
        "mean": mean,
        "second_mean": second_mean,
        "ret.weight": ret.detach(),
        "from_first.weight": from_first.T.contiguous(),
        "centre": centre.detach(),
        "tokens.weight": tokens.T.contiguous(),
        "tokens.bias": -(patch_mean @ tokens),
    }


def _likeness_loss(vectors: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
    """Compares two matrices of cosines (n, n), by mean square, and by cross entropy of rows without the diagonal."""
    itself = torch.eye(len(vectors), dtype=torch.bool)
    rows = (_LIKENESS * vectors).masked_fill(itself, -1e3).log_softmax(dim=1)
    target = (_LIKENESS * goals).masked_fill(itself, -1e3).softmax(dim=1)
    return _SQUARES * F.mse_loss(vectors, goals) + F.kl_div(rows, target, reduction="batchmean")


def _find_components(x: torch.Tensor, count: int) -> torch.Tensor:
    """Finds the first principal components (d, count) of rows (n, d). Raises ModelError: too few rows."""
    if min(x.shape) < count:
        raise ModelError(f"{count} principal components need as many photos and dimensions, not {tuple(x.shape)}")
    axes: torch.Tensor = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False).Vh[:count].T
    return axes
