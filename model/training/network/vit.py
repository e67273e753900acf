"""Describes plain ViTs, of timm and of CLIP, and finds them on this disk or a hub."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from sketch_search.model.engine.config import Size
from sketch_search.model.errors import ModelError
from sketch_search.model.training.network.relation import attention_weights

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

# The width of a head in nearly all ViTs.
_HEAD = 64
# The names of architectures. timm also takes names of places to download from, which a recipe may not name.
_ARCHITECTURE = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class VitLayout:
    """A plain ViT with a class token, without its weights.

    clip: a LayerNorm before the blocks and no patch bias. quick_gelu: x sigmoid(1.702 x). projection: 0 for none.
    """

    patch_size: Size
    width: Size
    depth: Size
    heads: Size
    mlp_width: Size
    norm_eps: float = 1e-6
    clip: bool = False
    quick_gelu: bool = False
    projection: Annotated[int, Field(ge=0, le=65536)] = 0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ModelError(f"unusable layout of a ViT: width {self.width} is not a multiple of heads {self.heads}")

    def build(self, image_size: int) -> "VisionTransformer":
        """Makes timm's ViT of this layout, with random weights and no projection."""
        from timm.layers.activations import QuickGELU
        from timm.models.vision_transformer import VisionTransformer

        return VisionTransformer(
            img_size=image_size,
            patch_size=self.patch_size,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
            # The half is added because timm rounds the product down.
            mlp_ratio=(self.mlp_width + 0.5) / self.width,
            pre_norm=self.clip,
            norm_layer=partial(nn.LayerNorm, eps=self.norm_eps),
            act_layer=QuickGELU if self.quick_gelu else nn.GELU,
            num_classes=0,
            global_pool="token",
        )


@dataclass(frozen=True)
class PretrainedVit:
    """A ViT from which a network starts, with weights under timm's key names."""

    layout: VitLayout
    image_size: int
    weights: dict[str, torch.Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def vit_layout(architecture: str, image_size: int, sizes: Mapping[str, Any] | None = None) -> VitLayout:
    """Finds the layout of timm's ViT of a name without a tag; sizes: those that differ. Raises ModelError."""
    # A recipe asks for its layout several times, and each time a whole ViT would be built.
    return _layout(architecture, image_size, json.dumps(sizes or {}, sort_keys=True))


@cache
def _layout(architecture: str, image_size: int, sizes: str) -> VitLayout:
    import timm
    from timm.layers.mlp import Mlp
    from timm.models.vision_transformer import VisionTransformer

    if not _ARCHITECTURE.fullmatch(architecture) or not timm.is_model(architecture):
        raise ModelError(f"timm has no architecture {architecture!r}; name one such as vit_small_patch8_224")
    try:
        with torch.device("meta"):
            vit: Any = timm.create_model(
                architecture,
                pretrained=False,
                num_classes=0,
                img_size=image_size,
                global_pool="token",
                **json.loads(sizes),
            )
    except (TypeError, ValueError, AssertionError) as error:
        raise ModelError(f"{architecture} cannot be built for {image_size} pixels: {error}") from error
    plain = type(vit) is VisionTransformer and vit.cls_token is not None and vit.pos_embed is not None
    if plain:
        first: Any = vit.blocks[0]
        plain = vit.num_prefix_tokens == 1 and type(first.mlp) is Mlp and isinstance(first.attn.q_norm, nn.Identity)
    if not plain:
        raise ModelError(
            f"{architecture} is not a plain ViT: with a class token and a position embedding, without registers, "
            "gated MLPs and normalised queries"
        )
    norm: Any = vit.norm
    return VitLayout(
        patch_size=vit.patch_embed.patch_size[0],
        width=vit.embed_dim,
        depth=len(vit.blocks),
        heads=first.attn.num_heads,
        mlp_width=first.mlp.fc1.out_features,
        norm_eps=norm.eps,
        clip=not isinstance(vit.norm_pre, nn.Identity),
        quick_gelu=type(first.mlp.act).__name__ == "QuickGELU",
    )


def layout_of(weights: Mapping[str, torch.Tensor]) -> VitLayout:
    """Finds the layout of a plain ViT, with heads 64 wide, from weights under timm's names. Raises ModelError."""
    try:
        hidden, width = weights["blocks.0.mlp.fc1.weight"].shape
        patch = weights["patch_embed.proj.weight"].shape[-1]
    except (KeyError, ValueError) as error:
        raise ModelError(f"not a plain ViT: {error}") from error
    depth = sum(name.startswith("blocks.") and name.endswith(".norm1.weight") for name in weights)
    return VitLayout(patch, width, depth, max(1, width // _HEAD), hidden)


def load_vit(vit: "VisionTransformer", weights: dict[str, torch.Tensor]) -> None:
    """Loads weights under timm's names, with positions resampled to the grid. Raises ModelError."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    state = {name: value.float() for name, value in weights.items() if not name.startswith(("head.", "head_dist."))}
    position = state.get("pos_embed")
    if position is not None and position.ndim == 3:
        state["pos_embed"] = resample_abs_pos_embed(position, list(vit.patch_embed.grid_size))
    try:
        vit.load_state_dict(state)
    except RuntimeError as error:
        first = shorten(str(error).splitlines()[1], 120)
        raise ModelError(
            f"the backbone's weights do not fit the named ViT ({first}); use the preset or recipe of its size"
        ) from error


def mean_attention(attn: Any, x: torch.Tensor, count: int) -> torch.Tensor:
    """Computes the mean attention of the first ``count`` tokens in timm's block: (b, n, d) -> (b, heads, n)."""
    (query, key, _), (for_query, for_key, _) = attn.qkv.weight.chunk(3), attn.qkv.bias.chunk(3)
    q, k = F.linear(x[:, :count], query, for_query), F.linear(x, key, for_key)
    q, k = (part.reshape(*part.shape[:2], attn.num_heads, -1).transpose(1, 2) for part in (q, k))
    return attention_weights(q, k).mean(dim=2)


# The form in which timm and open_clip name a repository: hf-hub:OWNER/NAME.
HUB = "hf-hub:"
# Seconds in which a hub has to answer. The library itself tries again and again for a minute.
_ANSWER = 5.0


def find_cached(repository: str, files: Sequence[str]) -> Path | None:
    """Finds the first of these files of a repository that is on this disk."""
    from huggingface_hub import try_to_load_from_cache

    paths = (try_to_load_from_cache(repository, name) for name in files)
    return next((Path(path) for path in paths if isinstance(path, str)), None)


def check_reachable(repository: str) -> None:
    """Raises ModelError if the hub does not answer within seconds, or does not have this repository."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        HfApi().model_info(repository, timeout=_ANSWER)
    except RepositoryNotFoundError as error:
        raise ModelError(f"the hub has no public repository {repository}; check OWNER/NAME") from error
    except OfflineModeIsEnabled as error:
        raise ModelError(f"{repository} is not on this disk, and HF_HUB_OFFLINE forbids to download it") from error
    # The errors of the library's HTTP client, which has changed.
    except Exception as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise ModelError(
            f"{repository} is not on this disk, and the hub cannot be reached ({reason}); connect to the network, or "
            "name a file"
        ) from error


def fetch(repository: str, name: str) -> Path:
    """Downloads a file of a repository, unless it is on this disk. Raises ModelError if it cannot be downloaded."""
    from huggingface_hub import hf_hub_download

    if (path := find_cached(repository, [name])) is not None:
        return path
    check_reachable(repository)
    try:
        return Path(hf_hub_download(repository, name))
    except Exception as error:
        raise ModelError(f"{repository} has no {name} that can be fetched ({error}); name a file instead") from error
