"""Plain ViTs, of timm and of CLIP, described by their sizes; and what networks with one vector have in common."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from model.errors import ModelError
from model.network.config import Modality, within
from model.network.json_fields import from_json, to_json
from model.network.layers import EncoderTrace

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


def mean_attention(attn: Any, x: torch.Tensor, count: int) -> torch.Tensor:
    """The attention of a block of timm, by head, as the mean of its first tokens.

    x: (b, n, d), what enters the attention, normalised. count: how many tokens. Returns (b, heads, n).
    """
    b, n, _ = x.shape
    q, k, _ = attn.qkv(x).reshape(b, n, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    q, k = attn.q_norm(q[:, :, :count]), attn.k_norm(k)
    weights: torch.Tensor = (q.float() @ k.float().transpose(-2, -1) * attn.scale).softmax(dim=-1)
    return weights.mean(dim=2)


@dataclass(frozen=True)
class OneVectorConfig:
    """A base without fields, so that the fields of a configuration are those of its own class."""

    @property
    def released_preprocessing(self) -> bool:
        """Whether sketches are cropped as for released ZSE-SBIR networks: never."""
        return False

    def token_count(self, modality: Modality) -> int:
        """How many tokens an encoded picture has: its vector alone."""
        return 1

    def to_json(self) -> str:
        """As stored in a checkpoint."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ModelError for unknown or missing fields: a newer or damaged checkpoint."""
        return from_json(cls, text, "configuration")


# timm also takes names of places to download from; a checkpoint may only name an architecture.
_ARCHITECTURE = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class VitSizes:
    """The sizes of a ViT that is smaller or larger than timm's of that name."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        bounds = {"embed_dim": (1, 8192), "depth": (1, 128), "num_heads": (1, 256), "mlp_ratio": (0.1, 64)}
        if wrong := [name for name, (least, most) in bounds.items() if not least <= getattr(self, name) <= most]:
            raise ModelError(f"unusable sizes of a ViT: {', '.join(wrong)}")
        if self.embed_dim % self.num_heads:
            raise ModelError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")


@dataclass(frozen=True)
class VitShape:
    """What others need to know of a ViT: the width of its tokens, and the patches along a side of its input."""

    width: int
    grid: int


def build_vit(architecture: str, image_size: int, sizes: VitSizes | None = None) -> VisionTransformer:
    """A ViT with random weights and without a classifier.

    architecture: timm's name, without the tag of its weights, such as "vit_small_patch8_224".
    Raises ModelError where timm has none of that name, or none with a class token and this input size.
    """
    import timm
    from timm.models.vision_transformer import VisionTransformer

    if not _ARCHITECTURE.fullmatch(architecture) or not timm.is_model(architecture):
        raise ModelError(f"timm has no architecture {architecture!r}; name one such as vit_small_patch8_224")
    wanted = {} if sizes is None else asdict(sizes)
    try:
        vit = timm.create_model(
            architecture, pretrained=False, num_classes=0, img_size=image_size, global_pool="token", **wanted
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise ModelError(f"{architecture} cannot be built for {image_size} pixels: {error}") from error
    if type(vit) is not VisionTransformer or vit.cls_token is None or vit.pos_embed is None:
        raise ModelError(f"{architecture} is not a plain ViT with a class token and a position embedding")
    if image_size % vit.patch_embed.patch_size[0]:
        raise ModelError(f"{image_size} pixels are no whole number of patches of {vit.patch_embed.patch_size[0]}")
    return vit


@lru_cache(maxsize=32)
def vit_shape(architecture: str, image_size: int, sizes: VitSizes | None = None) -> VitShape:
    """The shape of ``build_vit``; nothing is computed or kept."""
    with torch.device("meta"):
        vit = build_vit(architecture, image_size, sizes)
    return VitShape(vit.embed_dim, vit.patch_embed.grid_size[0])


def load_vit(vit: VisionTransformer, weights: dict[str, torch.Tensor]) -> None:
    """Gives a ViT pretrained weights, under timm's key names; the classifier among them is left out.

    Position embeddings are resampled to the ViT's grid. Raises ModelError where the weights are another ViT's.
    """
    from timm.layers.pos_embed import resample_abs_pos_embed

    given = {name: value.float() for name, value in weights.items() if not name.startswith(("head.", "head_dist."))}
    position = given.get("pos_embed")
    own = vit.pos_embed
    if position is not None and own is not None and position.ndim == 3 and position.shape[1] != own.shape[1]:
        prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
        given["pos_embed"] = resample_abs_pos_embed(
            position, new_size=list(vit.patch_embed.grid_size), num_prefix_tokens=prefix
        )
    try:
        vit.load_state_dict(given)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise ModelError(f"the backbone's weights are not those of the ViT that was named: {first}") from error


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
