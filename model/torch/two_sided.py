"""A ViT that photos and sketches share: frozen for photos, with norms, biases and scales of its own for sketches::

      photo (224 x 224)                              sketch (224 x 224, scaled to 168 x 168)
          | 16 x 16 patches                              | 12 x 12 patches
      blocks: matrices, norms, biases, scales        blocks: the matrices, and norms, biases, scales of sketches
          | class token and mean patch                   |
      projected, centred: [Ret]                      the photos' projection, centred by the sketches' mean: [Ret]
          | patches to which the class token attends     |
      projected: tokens                              projected by a matrix of the sketches: tokens

The part that photos need, the *photo side*, is one file that several checkpoints share: an index that was made by it
serves each of them. A checkpoint adds the sketch side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, get_args

import torch
import torch.nn.functional as F
from torch import nn

from sketch_search.model.engine import Modality, cells_of_patches
from sketch_search.model.engine.graphs import BLOCK_PARAMETERS, SECOND_PATCH
from sketch_search.model.torch.relation import Tokens, attention_weights, dot_product_attention, select_tokens
from sketch_search.model.torch.vit import EncoderTrace, VitLayout

if TYPE_CHECKING:
    from sketch_search.model.engine import TwoSidedConfig

_OF_PRODUCTS = frozenset({"qkv_bias", "proj_bias", "fc1_bias", "fc2_bias"})


def main_layout(config: TwoSidedConfig) -> VitLayout:
    """Returns the layout of the ViT of photos and sketches."""
    width, look = config.encoder_width, (config.norm_eps, config.pre_norm, config.quick_gelu)
    return VitLayout(config.patch_size, width, config.depth, config.heads, int(width * config.mlp_ratio), *look)


def second_layout(config: TwoSidedConfig) -> VitLayout:
    """Returns the layout of the ViT that sees photos alone."""
    width, hidden = config.second_width, int(config.second_width * config.mlp_ratio)
    return VitLayout(SECOND_PATCH, width, config.depth, config.second_heads, hidden, config.norm_eps)


# The matrices of a block, and their names in timm.
_TIMM = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
BLOCK_MATRICES = {name.partition(".")[2]: f"{name}.weight" for name in _TIMM}


def vit_of_photo_side(tensors: Mapping[str, torch.Tensor], *, matrices_only: bool = False) -> dict[str, torch.Tensor]:
    """Names a photo side's tensors of its first ViT as `Encoder` does; positions (1, 1 + n, width) are of its own grid.

    tensors: by their names in a `PhotoSide`. matrices_only: leaves out all that a training on it tunes.
    """
    vit = {"tokenizer.patch.weight": tensors["vit.patch_kernel"]}
    names = {f"vit.{name}": timm for name, timm in BLOCK_MATRICES.items()}
    if not matrices_only:
        names |= {f"tuning.{name}": timm for name, timm in BLOCK_PARAMETERS.items()}
        vit["tokenizer.patch.bias"] = tensors["tuning.patch_bias"]
        vit["ret"], vit["position"] = tensors["vit.class_token"][None, None], tensors["vit.position"][None]
        vit |= {f"norm.{part}": tensors[f"tuning.norm_{part}"] for part in ("weight", "bias")}
    for name, timm in names.items():
        vit |= {f"blocks.{block}.{timm}": row for block, row in enumerate(tensors[name])}
    return vit


class Tuning(nn.Module):
    """The one-dimensional parameters of the blocks, stacked, and of the patch embedding."""

    def __init__(self, layout: VitLayout) -> None:
        super().__init__()
        width = layout.width
        self.patch_bias = nn.Parameter(torch.zeros(width))
        for name in BLOCK_PARAMETERS:
            count = {"qkv_bias": 3 * width, "fc1_bias": layout.mlp_width}.get(name, width)
            start = torch.zeros if name.endswith("bias") else torch.ones
            self.register_parameter(name, nn.Parameter(start(layout.depth, count)))
        self.norm_weight = nn.Parameter(torch.ones(width))
        self.norm_bias = nn.Parameter(torch.zeros(width))

    def blocks(self, dtype: torch.dtype) -> list[tuple[torch.Tensor, ...]]:
        """Returns the parameters of each block, in the order of BLOCK_PARAMETERS; biases of products in ``dtype``."""
        stacks = ((name, self.get_parameter(name)) for name in BLOCK_PARAMETERS)
        return [*zip(*((x.to(dtype) if name in _OF_PRODUCTS else x).unbind() for name, x in stacks), strict=True)]


class FrozenVit(nn.Module):
    """The matrices of a ViT with LayerScale, such as DINOv2's. They are used with the `Tuning` of either side.

    qkv, proj, fc1 and fc2 are (depth, out, in), in the precision to compute in; pre_norm (2, width) is CLIP's.
    """

    def __init__(self, layout: VitLayout, image_size: int) -> None:
        super().__init__()
        depth, width, hidden = layout.depth, layout.width, layout.mlp_width
        self.heads, self.patch_size, self.norm_eps = layout.heads, layout.patch_size, layout.norm_eps
        self.quick_gelu = layout.quick_gelu
        self.patch_kernel = nn.Buffer(torch.zeros(width, 3, layout.patch_size, layout.patch_size))
        self.class_token = nn.Buffer(torch.zeros(width))
        self.position = nn.Buffer(torch.zeros(1 + (image_size // layout.patch_size) ** 2, width))
        self.qkv = nn.Buffer(torch.zeros(depth, 3 * width, width))
        self.proj = nn.Buffer(torch.zeros(depth, width, width))
        self.fc1 = nn.Buffer(torch.zeros(depth, hidden, width))
        self.fc2 = nn.Buffer(torch.zeros(depth, width, hidden))
        self.pre_norm: torch.Tensor | None
        self.register_buffer("pre_norm", torch.zeros(2, width) if layout.clip else None)

    def forward(
        self,
        images: torch.Tensor,
        side: Tuning,
        position: torch.Tensor | None = None,
        trace: list[torch.Tensor] | None = None,
        kept: int | None = None,
        squares: list[torch.Tensor] | None = None,
        middle: list[torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Passes (b, 3, H, W) pixels of n patches through all blocks and the final norm.

        position: (1 + n, width). trace: gets the class token's attention, (b, heads, n), of each block. kept: patches
        that leave the last block. squares: gets means of 2 x 2 patches there, (b, n / 4, width), 7% faster than all.
        middle: gets the patches' tokens before the middle block, (b, n, width).
        Returns tokens (b, 1 + n or kept, width) float32, and (b, n), the class token's attention in the last block.
        """
        position = self.position if position is None else position
        patches = F.conv2d(images, self.patch_kernel, side.patch_bias, stride=self.patch_size)
        first = (self.class_token + position[0]).expand(len(images), 1, -1)
        x = torch.cat([first, patches.flatten(2).transpose(1, 2) + position[1:]], dim=1)
        b, n, width = x.shape
        if self.pre_norm is not None:
            x = F.layer_norm(x, (width,), self.pre_norm[0], self.pre_norm[1], self.norm_eps)
        importance = x.new_zeros(b, n - 1)
        dtype, last = self.qkv.dtype, len(self.qkv) - 1
        # Taken apart at once: on a GPU each call from Python takes as long as what it computes.
        matrices = zip(*(self.get_buffer(name).unbind() for name in BLOCK_MATRICES), strict=True)
        for index, ((of_qkv, *others), (norm1_w, norm1_b, qkv_b, *rest)) in enumerate(
            zip(matrices, side.blocks(dtype), strict=True)
        ):
            after = partial(self._after, others, rest)
            if middle is not None and index == (last + 1) // 2:
                middle.append(x[:, 1:])
            y = F.layer_norm(x, (width,), norm1_w, norm1_b, self.norm_eps).to(dtype)
            qkv = F.linear(y, of_qkv, qkv_b)
            q, k, v = qkv.view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            if trace is not None or index == last:
                heads = attention_weights(q[:, :, :1], k)[:, :, 0, 1:]
                importance = heads.mean(dim=1)
                if trace is not None:
                    trace.append(heads)
            if squares is not None and index == last:
                means = _of_squares(q.transpose(1, 2).flatten(2))
                means = means.reshape(b, -1, self.heads, width // self.heads).transpose(1, 2)
                squares.append(self._norm(after(_of_squares(x), means, k, v), side))
            if kept is not None and index == last:
                rows = F.pad(1 + select_tokens(importance, kept), (1, 0))
                q, x = q.take_along_dim(rows[:, None, :, None], dim=2), x.take_along_dim(rows[..., None], dim=1)
            x = after(x, q, k, v)
        return self._norm(x, side), importance

    def _norm(self, x: torch.Tensor, side: Tuning) -> torch.Tensor:
        return F.layer_norm(x, (x.shape[2],), side.norm_weight, side.norm_bias, self.norm_eps)

    def _after(
        self,
        matrices: Sequence[torch.Tensor],
        parameters: Sequence[torch.Tensor],
        x: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
    ) -> torch.Tensor:
        """Passes the tokens of the query, (b, m, width), through the rest of a block."""
        proj, fc1, fc2 = matrices
        proj_b, scale1, norm2_w, norm2_b, fc1_b, fc2_b, scale2 = parameters
        mixed = dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = torch.addcmul(x, F.linear(mixed, proj, proj_b), scale1)
        y = F.layer_norm(x, (x.shape[2],), norm2_w, norm2_b, self.norm_eps).to(fc1.dtype)
        y = F.linear(y, fc1, fc1_b)
        y = y * torch.sigmoid(1.702 * y) if self.quick_gelu else F.gelu(y)
        return torch.addcmul(x, F.linear(y, fc2, fc2_b), scale2)

    def set_precision(self, dtype: torch.dtype) -> None:
        """Lets the products of tokens and matrices compute in ``dtype``. All other steps stay in float32."""
        for name in BLOCK_MATRICES:
            setattr(self, name, getattr(self, name).to(dtype))


class PhotoHead(nn.Module):
    """Projects a photo to an index's tokens: [Ret] from two ViTs' class tokens, and patch tokens from the first ViT's.

    Two ViTs that were trained differently err differently. With a and b their class tokens, of length 1, minus the
    means of photos, both scaled to length 1 again,

        [Ret] = unit(unit(W (a, b)) - centre).

    Without a second ViT, b is empty. ``from_first`` maps class token and mean patch of the first to nearly this [Ret].
    """

    def __init__(self, config: TwoSidedConfig) -> None:
        super().__init__()
        first, second = config.encoder_width, config.second_width
        self.mean = nn.Parameter(torch.zeros(first))
        self.second_mean = nn.Parameter(torch.zeros(second))
        self.ret = nn.Linear(first + second, config.width, bias=False)
        self.from_first = nn.Linear(2 * first, config.width, bias=False)
        self.centre = nn.Parameter(torch.zeros(config.width))
        self.tokens = nn.Linear(first, config.width)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Class tokens (b, w_1) and (b, w_2) -> [Ret], (b, d) of length 1."""
        a, b = _unit(_unit(first) - self.mean), _unit(_unit(second) - self.second_mean)
        return _unit(_unit(self.ret(torch.cat([a, b], dim=-1))) - self.centre)

    def local(self, patches: torch.Tensor) -> torch.Tensor:
        """Patch tokens of the first ViT (b, n, w_1) -> their local [Ret], as of a photo that shows this patch alone."""
        return _unit(_unit(self.from_first(torch.cat([patches, patches], dim=-1))) - self.centre)


class SketchHead(nn.Module):
    """Projects a sketch to the place of its photos: [Ret] = unit(unit(W (class, mean)) - centre), and tokens."""

    def __init__(self, config: TwoSidedConfig) -> None:
        super().__init__()
        self.ret = nn.Linear(2 * config.encoder_width, config.width, bias=False)
        self.centre = nn.Parameter(torch.zeros(config.width))
        self.tokens = nn.Linear(config.encoder_width, config.width)

    def forward(self, summary: torch.Tensor) -> torch.Tensor:
        """Class tokens and mean patches, of length 1 each, side by side (b, 2w) -> [Ret], (b, d) of length 1."""
        return _unit(_unit(self.ret(summary)) - self.centre)


class PhotoSide(nn.Module):
    """The parts that decide the tokens of a photo. One file holds them for all checkpoints."""

    def __init__(self, config: TwoSidedConfig) -> None:
        super().__init__()
        self.vit = FrozenVit(main_layout(config), config.image_size)
        self.tuning = Tuning(main_layout(config))
        self.second_vit: FrozenVit | None = None
        if config.second_width:
            self.second_vit = FrozenVit(second_layout(config), config.image_size)
            self.second_tuning = Tuning(second_layout(config))
        self.head = PhotoHead(config)

    def set_precision(self, dtype: torch.dtype) -> None:
        self.vit.set_precision(dtype)
        if self.second_vit is not None:
            self.second_vit.set_precision(dtype)

    def second(self, images: torch.Tensor) -> torch.Tensor:
        """(b, 3, H, W) normalised pixels -> (b, w_2) float32, the second ViT's class tokens; w_2 is 0 without one."""
        if self.second_vit is None:
            return images.new_empty(len(images), 0)
        tokens: torch.Tensor = self.second_vit(images, self.second_tuning, kept=0)[0]
        return tokens[:, 0]


class TwoSidedEncoder(nn.Module):
    """Encodes photos by the photo side as it is, and sketches by its matrices with other parameters."""

    def __init__(self, config: TwoSidedConfig) -> None:
        super().__init__()
        self.config = config
        self.photo_side = PhotoSide(config)
        self.tuning = Tuning(main_layout(config))
        self.head = SketchHead(config)
        self.position = nn.Buffer(torch.zeros(1 + config.patches("sketch") ** 2, config.encoder_width))
        for modality in get_args(Modality):
            cells = torch.from_numpy(cells_of_patches(config.patches(modality), config.grid))
            self.register_buffer(f"{modality}_cells", cells, persistent=False)

    def forward(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        """(b, 3, H, W) -> tokens (b, 1 + kept, d) float32, at cells of the photos' grid; ``trace`` records the pass."""
        side, vit, summary, regions = self.photo_side, self.photo_side.vit, None, None
        count = self.config.token_count(modality) - 1
        attention: list[torch.Tensor] | None = [] if trace is not None and trace.attends else None
        if modality == "photo":
            squares: list[torch.Tensor] | None = None if self.config.grid % 2 else []
            kept = count if trace is None else None
            x, importance = vit(images, side.tuning, trace=attention, kept=kept, squares=squares)
            regions = side.head.local(squares[0]) if squares else None
            ret = side.head(x[:, 0], side.second(images))
            project = side.head.tokens
        else:
            size = self.config.sketch_size
            scaled = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
            middle: list[torch.Tensor] | None = None if trace is None else []
            x, importance = vit(scaled, self.tuning, self.position, attention, middle=middle)
            summary = torch.cat([_unit(x[:, 0]), _unit(x[:, 1:].mean(dim=1))], dim=-1)
            ret = self.head(summary)
            project = self.head.tokens
            if trace is not None and middle is not None:
                trace.patches = torch.stack([*middle, x[:, 1:]])
        best = select_tokens(importance, count)
        cells = self.get_buffer(f"{modality}_cells")
        positions = cells[best]
        if trace is not None and attention is not None:
            under = torch.from_numpy(cells_of_patches(self.config.grid, self.config.patches(modality))).to(x.device)
            for heads in attention:
                shown = heads[:, :, under]
                trace.add(shown * (heads.sum(dim=2, keepdim=True) / shown.sum(dim=2, keepdim=True)))
            trace.kept.append(positions)
            if modality == "photo":
                trace.everything = Tokens(torch.cat([ret[:, None], project(x[:, 1:])], dim=1), cells.expand(len(x), -1))
                trace.local = side.head.local(x[:, 1:])
        patches = x[:, 1:] if x.shape[1] == 1 + count else x[:, 1:].take_along_dim(best[..., None], dim=1)
        return Tokens(torch.cat([ret[:, None], project(patches)], dim=1), positions, summary, regions)


def _of_squares(tokens: torch.Tensor) -> torch.Tensor:
    """The means of 2 x 2 patches, of the class token and n patches: (b, 1 + n, d) -> (b, n / 4, d), row by row."""
    side = math.isqrt(tokens.shape[1] - 1)
    maps = tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)
    return F.avg_pool2d(maps, 2).flatten(2).transpose(1, 2)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, dim=-1, eps=1e-6)
