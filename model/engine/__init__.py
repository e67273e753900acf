"""Computes what indexing and searching need of a two-sided network, by ONNX Runtime and numpy.

``graphs`` writes the operations, ``runtime`` runs them with the weights of a checkpoint, and ``surface`` says what
comes out. Indexing and searching do not use it yet: they compute by PyTorch.
"""

from model.engine.files import TwoSidedFiles, read_two_sided
from model.engine.graphs import write_graphs
from model.engine.runtime import OnnxEngine
from model.engine.surface import Aligned, Engine, Matching, Observed, SelfAttention
from model.engine.tokens import Tokens, averaged_variants, sketch_variants, unit
