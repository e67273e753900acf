"""The networks: from a picture to tokens, and from the tokens of two pictures to their relation score.

``zse.py`` composes the network of ZSE-SBIR from the other modules; ``ModelConfig`` says which variant of it.
``model.Matcher`` is written for this network. A network of another kind comes in as a class with the surface of
``Matcher``, which ``model.load`` chooses by the checkpoint. If it has a single global vector for each picture, it gives
tokens that hold [Ret] only, and its methods are ``("ret",)``.
"""

from model.network.backbone import POSITION, from_backbone, read_backbone, resized
from model.network.calibration import METHODS, UNCALIBRATED, Calibration, Method
from model.network.config import PRESETS, Modality, ModelConfig, preset
from model.network.cost import Costs, costs
from model.network.cross import CrossAttention, CrossSide, Side
from model.network.encoder import Encoder, EncoderTrace
from model.network.precision import fastest_dtype, multiplies_bf16
from model.network.prior import Prior
from model.network.relation import BestMatchRelation, KernelRelation, kernel_matrix
from model.network.tokens import Tokens
from model.network.vocabulary import Vocabulary, guess_log_probabilities
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
    "Prior",
    "Side",
    "Tokens",
    "Vocabulary",
    "costs",
    "fastest_dtype",
    "from_backbone",
    "guess_log_probabilities",
    "kernel_matrix",
    "multiplies_bf16",
    "preset",
    "read_backbone",
    "resized",
]
