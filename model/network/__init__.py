"""The networks: from a picture to tokens, and from the tokens of two pictures to their relation score.

``zse.py`` composes the network of ZSE-SBIR from the other modules. Another network (Sketch-an-Anchor, CLIP-AT) goes
beside it, with the same surface: ``encode``, ``project``, ``relate``, ``config``, ``calibration``. One with a single
global vector for each picture gives ``Tokens.of_ret`` and has the calibration ``methods=("ret",)``. ``load_network`` in
``model.checkpoint`` builds every network from its configuration, which is where one kind is chosen among several.
"""

from model.network.backbone import POSITION, from_backbone, read_backbone, resized
from model.network.calibration import METHODS, UNCALIBRATED, Calibration, Method
from model.network.config import PRESETS, Modality, ModelConfig, preset
from model.network.cost import Costs, costs
from model.network.cross import CrossAttention, CrossSide, Side
from model.network.encoder import Encoder, EncoderTrace
from model.network.precision import fastest_dtype
from model.network.relation import BestMatchRelation, KernelRelation, kernel_matrix
from model.network.tokens import Tokens
from model.network.zse import Network

__all__ = [
    "METHODS",
    "POSITION",
    "PRESETS",
    "UNCALIBRATED",
    "BestMatchRelation",
    "Calibration",
    "Costs",
    "CrossAttention",
    "CrossSide",
    "Encoder",
    "EncoderTrace",
    "KernelRelation",
    "Method",
    "Modality",
    "ModelConfig",
    "Network",
    "Side",
    "Tokens",
    "costs",
    "fastest_dtype",
    "from_backbone",
    "kernel_matrix",
    "preset",
    "read_backbone",
    "resized",
]
