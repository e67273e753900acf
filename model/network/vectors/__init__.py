"""Networks that give one vector for each picture: the tokens are [Ret] alone, and the only method is "ret".

``vit.py`` builds any plain ViT of timm, ``clip.py`` reads CLIP, and ``layout.py`` describes both by their sizes; a
module for each method says what it adds to one.
"""

from model.network.vectors.clip import Clip, clip_encoder, read_clip
from model.network.vectors.clip_at import (
    ClipAtConfig,
    ClipAtNetwork,
    Learned,
    clip_at_network_from,
    with_learned,
)
from model.network.vectors.clip_source import ClipSource, clip_source
from model.network.vectors.layout import PretrainedVit, VitLayout, layout_of
from model.network.vectors.sketch_an_anchor import (
    Anchor,
    AnchorConfig,
    AnchorNetwork,
    Representations,
    anchor_network_from,
)
from model.network.vectors.vit import VitSizes, build_vit, load_vit

__all__ = [
    "Anchor",
    "AnchorConfig",
    "AnchorNetwork",
    "Clip",
    "ClipAtConfig",
    "ClipAtNetwork",
    "ClipSource",
    "Learned",
    "PretrainedVit",
    "Representations",
    "VitLayout",
    "VitSizes",
    "anchor_network_from",
    "build_vit",
    "clip_at_network_from",
    "clip_encoder",
    "clip_source",
    "layout_of",
    "load_vit",
    "read_clip",
    "with_learned",
]
