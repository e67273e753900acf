"""Networks that give one vector for each picture: the tokens are [Ret] alone, and the only method is "ret".

``vit.py`` builds any plain ViT of timm; a module for each method says what it adds to one.
"""

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
    "Representations",
    "VitSizes",
    "anchor_network_from",
    "build_vit",
    "load_vit",
]
