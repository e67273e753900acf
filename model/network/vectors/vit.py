"""Any plain ViT of timm, named by its architecture, and its pretrained weights.

timm is imported where it is used. That takes seconds, and programs that search with other networks do not need it.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from model.errors import ModelError

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

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
