"""CLIP by open_clip: its image encoder as a ViT of timm, and the vectors that its text encoder gives to sentences.

open_clip is imported where it is used. Programs that search do not need it, and other networks never do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from model.errors import ModelError
from model.network.vit import PretrainedVit, VitLayout
from model.terminal import expanded


@dataclass(frozen=True)
class ClipSource:
    """A CLIP that was named. Whether there is one of that name, is not said by this.

    Attributes:
        model: as open_clip calls it: the name of an architecture, or "local-dir:FOLDER"; empty where none was named.
        folder: where open_clip saved it; None if it is not in a folder.
        file: of its weights, for MODEL@FILE; else None.
        tag: of its published weights, for MODEL/PRETRAINED; else empty.
    """

    model: str
    folder: Path | None = None
    file: Path | None = None
    tag: str = ""

    def published(self) -> Mapping[str, Any]:
        """The settings of published weights of that name; empty where open_clip knows none."""
        import open_clip

        known: Mapping[str, Any] = open_clip.get_pretrained_cfg(self.model, self.tag) if self.model else {}
        return known

    def is_known(self) -> bool:
        """True if open_clip knows the architecture."""
        import open_clip

        return self.model in open_clip.list_models()


def clip_source(source: str) -> ClipSource:
    """Reads MODEL/PRETRAINED, MODEL@FILE, or a folder that is there; ``~`` is a home folder."""
    path = expanded(source)
    if path.is_dir():
        return ClipSource(f"local-dir:{path}", folder=path)
    model, at, file = source.partition("@")
    if at:
        return ClipSource(model, file=expanded(file))
    model, _, tag = source.rpartition("/")
    return ClipSource(model, tag=tag)


FORMS = "MODEL/PRETRAINED as open_clip names them, MODEL@FILE, or a folder that open_clip saved"
# The names of CLIP's image encoder, and those of timm's ViT.
_RENAMED = (
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^conv1\.", "patch_embed.proj."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^proj$", "projection.weight"),
    (r"^transformer\.resblocks\.(\d+)\.ln_([12])\.", r"blocks.\1.norm\2."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"blocks.\1.mlp.fc1."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"blocks.\1.mlp.fc2."),
)
# The numbers of a head in all of OpenAI's encoders.
_HEAD = 64
_NORM_EPS = 1e-5
# Sentences whose vectors are computed at once.
_AT_ONCE = 64


@dataclass(frozen=True)
class Clip:
    """A CLIP that has been read.

    Attributes:
        encoder: its image encoder.
        text: sentences -> (n, d) float32, their vectors, L2-normalised.
    """

    encoder: PretrainedVit
    text: Callable[[Sequence[str]], torch.Tensor]


def read_clip(source: str) -> Clip:
    """Reads a CLIP, whose weights are downloaded if they are named by a tag and not on this disk.

    source: see FORMS. Raises ModelError, saying what to do, for one that cannot be had or used: it has no text encoder,
    or its image encoder is no plain ViT.
    """
    import open_clip

    named = clip_source(source)
    settings: Mapping[str, Any] = {}
    wanted: str | None = None
    if named.folder is not None:
        _check_folder(named.folder)
    elif named.file is not None:
        wanted = str(named.file)
        if not named.file.is_file() or not named.is_known():
            raise ModelError(f"{source} needs a model that open_clip knows, such as ViT-B-32, and an existing file")
    else:
        wanted, settings = named.tag, named.published()
        if not settings:
            raise ModelError(f"{source} is no CLIP; name {FORMS}, such as ViT-B-32/laion2b_s34b_b79k")
    try:
        model = open_clip.create_model(
            named.model, wanted, require_pretrained=True, force_quick_gelu=bool(settings.get("quick_gelu", False))
        ).eval()
        tokens = open_clip.get_tokenizer(named.model)
    # For weights that do not fit or cannot be fetched, open_clip raises whatever error its code runs into.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "token_embedding" in str(error) or "text_projection" in str(error):
            raise _without_text(source) from error
        raise ModelError(f"{source} cannot be loaded as CLIP ({reason}); name {FORMS}") from error

    # Not inference mode, whose tensors no training can use.
    @torch.no_grad()
    def text(sentences: Sequence[str]) -> torch.Tensor:
        starts = range(0, len(sentences), _AT_ONCE)
        parts = [model.encode_text(tokens(list(sentences[start : start + _AT_ONCE]))) for start in starts]
        return F.normalize(torch.cat(parts).float(), dim=1)

    return Clip(_encoder(model.visual, source), text)


def clip_encoder(
    state: Mapping[str, torch.Tensor],
    *,
    heads: int | None = None,
    quick_gelu: bool = True,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> PretrainedVit:
    """An image encoder from its weights, under the names of CLIP's own code, without a prefix such as "visual.".

    heads: of its attention; None for as many as OpenAI gave to a ViT of its width.
    Raises ModelError where they are not those of a ViT of CLIP.
    """
    try:
        conv, position, projection = state["conv1.weight"], state["positional_embedding"], state["proj"]
        width, patch = conv.shape[0], conv.shape[2]
        depth = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("transformer.resblocks."))
        layout = VitLayout(
            patch_size=patch,
            width=width,
            depth=depth,
            heads=heads or max(1, width // _HEAD),
            mlp_width=state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            norm_eps=_NORM_EPS,
            clip=True,
            quick_gelu=quick_gelu,
            projection=projection.shape[1],
        )
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(f"these are not the weights of a ViT of CLIP: {error}") from error
    weights = {_renamed(key): value.detach().float() for key, value in state.items()}
    weights["cls_token"] = weights["cls_token"].reshape(1, 1, -1)
    weights["pos_embed"] = weights["pos_embed"][None]
    weights["projection.weight"] = weights["projection.weight"].T.contiguous()
    return PretrainedVit(layout, isqrt(len(position) - 1) * patch, weights, mean, std)


def _encoder(visual: Any, source: str) -> PretrainedVit:
    from open_clip.transformer import QuickGELU, VisionTransformer

    plain = (
        type(visual) is VisionTransformer
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.final_ln_after_pool
        and visual.proj is not None
        and visual.patch_size[0] == visual.patch_size[1]
        and visual.grid_size[0] == visual.grid_size[1]
    )
    if not plain:
        raise ModelError(f"the image encoder of {source} is no plain ViT with a class token; name one such as ViT-B-32")
    first = visual.transformer.resblocks[0]
    settings = visual.preprocess_cfg
    return clip_encoder(
        visual.state_dict(),
        heads=first.attn.num_heads,
        quick_gelu=isinstance(first.mlp.gelu, QuickGELU),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
    )


def _check_folder(folder: Path) -> None:
    try:
        settings = json.loads((folder / "open_clip_config.json").read_text("utf-8"))["model_cfg"]
        found = "text_cfg" in settings
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} is no saved open_clip model; it needs a readable open_clip_config.json") from error
    if not found:
        raise _without_text(str(folder))


def _without_text(source: str) -> ModelError:
    return ModelError(
        f"{source} has no text encoder, which CLIP-AT needs for the names of classes; name a whole CLIP, or a recipe "
        "for a ViT of timm, such as clip-at/category"
    )


def _renamed(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)
    return key
