"""The networks: from a picture to tokens, and from the tokens of two pictures to their relation score.

``ret_network.py`` says what every network has. ``zse.py`` composes the network of ZSE-SBIR from the other modules;
``ModelConfig`` says which variant of it. ``vectors`` has the networks with one vector for each picture: their tokens
hold [Ret] only, and their methods are ``("ret",)``. A checkpoint says which kind of network it holds (``NETWORKS``).
"""

from collections.abc import Mapping

from model.network.backbone import from_backbone, read_backbone
from model.network.calibration import METHODS, UNCALIBRATED, Calibration, Method
from model.network.config import PRESETS, Modality, ModelConfig, preset
from model.network.layers import (
    BestMatchRelation,
    ConvolutionalEncoder,
    CrossAttention,
    CrossSide,
    Encoder,
    EncoderTrace,
    KernelRelation,
    PhotoSide,
    Side,
    TwoSidedEncoder,
    VitShape,
    kernel_matrix,
)
from model.network.precision import fastest_dtype, multiplies_bf16
from model.network.prior import Prior
from model.network.ret_network import NetworkConfig, RetNetwork
from model.network.tokens import Tokens
from model.network.variants import MOST_VARIANTS, seen_together, sketch_variants
from model.network.vectors import (
    Anchor,
    AnchorConfig,
    AnchorNetwork,
    Clip,
    ClipAtConfig,
    ClipAtNetwork,
    ClipSource,
    Learned,
    PretrainedVit,
    Representations,
    VitLayout,
    VitSizes,
    anchor_network_from,
    build_vit,
    clip_at_network_from,
    clip_encoder,
    clip_source,
    layout_of,
    load_vit,
    read_clip,
    with_learned,
)
from model.network.vocabulary import Vocabulary, guess_log_probabilities
from model.network.zse import Network, as_zse

# All kinds of networks, by the name that the metadata of a checkpoint has for each.
NETWORKS: Mapping[str, type[RetNetwork]] = {kind.kind: kind for kind in (Network, AnchorNetwork, ClipAtNetwork)}

__all__ = [
    "METHODS",
    "MOST_VARIANTS",
    "NETWORKS",
    "PRESETS",
    "UNCALIBRATED",
    "Anchor",
    "AnchorConfig",
    "AnchorNetwork",
    "BestMatchRelation",
    "Calibration",
    "Clip",
    "ClipAtConfig",
    "ClipAtNetwork",
    "ClipSource",
    "ConvolutionalEncoder",
    "CrossAttention",
    "CrossSide",
    "Encoder",
    "EncoderTrace",
    "KernelRelation",
    "Learned",
    "Method",
    "Modality",
    "ModelConfig",
    "Network",
    "NetworkConfig",
    "PhotoSide",
    "PretrainedVit",
    "Prior",
    "Representations",
    "RetNetwork",
    "Side",
    "Tokens",
    "TwoSidedEncoder",
    "VitLayout",
    "VitShape",
    "VitSizes",
    "Vocabulary",
    "anchor_network_from",
    "as_zse",
    "build_vit",
    "clip_at_network_from",
    "clip_encoder",
    "clip_source",
    "fastest_dtype",
    "from_backbone",
    "guess_log_probabilities",
    "kernel_matrix",
    "layout_of",
    "load_vit",
    "multiplies_bf16",
    "preset",
    "read_backbone",
    "read_clip",
    "seen_together",
    "sketch_variants",
    "with_learned",
]
