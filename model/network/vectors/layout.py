"""ViTs that are described by their sizes alone, those of timm and the image encoders of CLIP, and their pieces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from model.errors import ModelError
from model.network.config import within
from model.network.layers import EncoderTrace
from model.network.vectors.attention import mean_attention

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

_BOUNDS: dict[str, tuple[float, float]] = {
    "patch_size": (1, 512),
    "width": (1, 8192),
    "depth": (1, 128),
    "heads": (1, 256),
    "mlp_width": (1, 65536),
    "norm_eps": (1e-12, 1),
    "projection": (0, 65536),
}
# Where the LayerNorms of a ViT of timm stand, and what they are called in ``LayerNorms``.
_NORMS = (
    (re.compile(r"norm_pre\."), "first."),
    (re.compile(r"blocks\.(\d+)\.norm1\."), r"attention.\1."),
    (re.compile(r"blocks\.(\d+)\.norm2\."), r"mlp.\1."),
    (re.compile(r"norm\."), "last."),
)


@dataclass(frozen=True)
class VitLayout:
    """A plain ViT with a class token, without its weights.

    Attributes:
        patch_size: side of a patch in pixels.
        width, depth, heads, mlp_width: of its tokens, its blocks, their attention and their MLPs.
        norm_eps: of its LayerNorms.
        clip: whether it is built as CLIP's are: a LayerNorm before the blocks, and a patch projection without bias.
        quick_gelu: whether its MLPs have x sigmoid(1.702 x), as OpenAI's CLIP has, instead of GELU.
        projection: numbers of the vector to which the class token is projected; 0 for no projection.
    """

    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    norm_eps: float = 1e-6
    clip: bool = False
    quick_gelu: bool = False
    projection: int = 0

    def __post_init__(self) -> None:
        problems = [
            f"{name} must lie in {least:g} to {most:g}"
            for name, (least, most) in _BOUNDS.items()
            if not within(getattr(self, name), least, most)
        ]
        if not problems and self.width % self.heads:
            problems.append(f"width {self.width} is not a multiple of heads {self.heads}")
        if problems:
            raise ModelError("unusable layout of a ViT: " + "; ".join(problems))

    def build(self, image_size: int) -> VisionTransformer:
        """timm's ViT of this layout, with random weights and without the projection."""
        from timm.layers.activations import QuickGELU
        from timm.models.vision_transformer import VisionTransformer

        return VisionTransformer(
            img_size=image_size,
            patch_size=self.patch_size,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
            # timm rounds the product down.
            mlp_ratio=(self.mlp_width + 0.5) / self.width,
            pre_norm=self.clip,
            norm_layer=partial(nn.LayerNorm, eps=self.norm_eps),
            act_layer=QuickGELU if self.quick_gelu else nn.GELU,
            num_classes=0,
            global_pool="token",
        )


@dataclass(frozen=True)
class PretrainedVit:
    """A ViT that has been read, from which a network starts.

    Attributes:
        layout: of the ViT. image_size: side of its square input in pixels.
        weights: under timm's key names; those of its projection are "projection.weight".
        mean, std: normalisation of the pixels, which lie in [0, 1] before it.
    """

    layout: VitLayout
    image_size: int
    weights: dict[str, torch.Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def layout_of(vit: VisionTransformer) -> VitLayout:
    """The layout of a plain ViT of timm, as ``build_vit`` makes them."""
    first: Any = vit.blocks[0]
    last: Any = vit.norm
    return VitLayout(
        patch_size=vit.patch_embed.patch_size[0],
        width=vit.embed_dim,
        depth=len(vit.blocks),
        heads=first.attn.num_heads,
        mlp_width=first.mlp.fc1.out_features,
        norm_eps=last.eps,
        clip=not isinstance(vit.norm_pre, nn.Identity),
        quick_gelu=type(first.mlp.act).__name__ == "QuickGELU",
    )


class LayerNorms(nn.Module):
    """The LayerNorms of a ViT, apart from it."""

    def __init__(self, layout: VitLayout) -> None:
        super().__init__()

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(layout.width, eps=layout.norm_eps)

        self.first = norm() if layout.clip else nn.Identity()
        self.attention = nn.ModuleList(norm() for _ in range(layout.depth))
        self.mlp = nn.ModuleList(norm() for _ in range(layout.depth))
        self.last = norm()


class FrozenVit(nn.Module):
    """A ViT without LayerNorms, which is frozen; prompts and LayerNorms are given to it with each batch."""

    def __init__(self, layout: VitLayout, image_size: int) -> None:
        super().__init__()
        self.vit: Any = layout.build(image_size)
        self.vit.norm_pre, self.vit.norm = nn.Identity(), nn.Identity()
        for block in self.vit.blocks:
            block.norm1, block.norm2 = nn.Identity(), nn.Identity()
        self.projection = nn.Linear(layout.width, layout.projection, bias=False) if layout.projection else None
        self.requires_grad_(False)

    def forward(
        self, images: torch.Tensor, prompts: torch.Tensor, norms: LayerNorms, trace: EncoderTrace | None = None
    ) -> torch.Tensor:
        """(b, 3, H, W) normalised pixels -> (b, width or projection), the class token as it leaves the ViT.

        prompts: (k, width), tokens that stand behind those of the patches and have no position. ``trace`` records the
        attention of the class token.
        """
        vit = self.vit
        x = vit._pos_embed(vit.patch_embed(images))
        cells = x.shape[1] - 1
        x = norms.first(torch.cat([x, prompts.to(x.dtype).expand(len(x), -1, -1)], dim=1))
        for block, norm1, norm2 in zip(vit.blocks, norms.attention, norms.mlp, strict=True):
            y = norm1(x)
            if trace is not None:
                attention = mean_attention(block.attn, y, 1)[:, :, 1 : 1 + cells]
                trace.attention.append(attention)
                trace.positions.append(torch.arange(cells, device=x.device).expand(len(x), -1))
            x = x + block.attn(y)
            x = x + block.mlp(norm2(x))
        token: torch.Tensor = norms.last(x[:, 0])
        return token if self.projection is None else self.projection(token)


def split_norms(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights of a ViT under timm's names: those of ``FrozenVit.vit``, and those of ``LayerNorms``."""
    rest, norms = {}, {}
    for key, value in state.items():
        found = [pattern.sub(name, key, count=1) for pattern, name in _NORMS if pattern.match(key)]
        if found:
            norms[found[0]] = value
        else:
            rest[key] = value
    return rest, norms
