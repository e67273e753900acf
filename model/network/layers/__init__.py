"""The parts that networks are made of: tokenizer, transformer blocks, encoders, cross-attention, relation networks."""

from model.network.layers.convolutional import ConvolutionalEncoder
from model.network.layers.cross import CrossAttention, CrossSide, Side
from model.network.layers.encoder import Encoder, EncoderTrace
from model.network.layers.relation import RELATIONS, BestMatchRelation, KernelRelation, RetTerm, kernel_matrix
from model.network.layers.two_sided import SECOND_PATCH, PhotoSide, Tuning, TwoSidedEncoder, VitShape

__all__ = [
    "RELATIONS",
    "SECOND_PATCH",
    "BestMatchRelation",
    "ConvolutionalEncoder",
    "CrossAttention",
    "CrossSide",
    "Encoder",
    "EncoderTrace",
    "KernelRelation",
    "PhotoSide",
    "RetTerm",
    "Side",
    "Tuning",
    "TwoSidedEncoder",
    "VitShape",
    "kernel_matrix",
]
