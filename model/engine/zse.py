"""Runs ZSE-SBIR's network on a photo side's ViT by ONNX Runtime, on CPUs.

ViT and cross-attention run by the graphs of two-sided networks; numpy computes kernel matrix and relation network.
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from sketch_search.model.engine import graphs
from sketch_search.model.engine.config import Modality, TwoSidedConfig, ZseConfig
from sketch_search.model.engine.files import CheckpointFiles, read_files
from sketch_search.model.engine.knowledge import below, knowledge_of
from sketch_search.model.engine.runtime import GraphEngine, OnnxEngine, Vit, cross_shapes, take_arrays, vit_weights
from sketch_search.model.engine.surface import Aligned, Engine, Observed, SelfAttention, grid_maps, lost_by_blocks
from sketch_search.model.engine.tokens import Floats, Tokens, average_variants, unit
from sketch_search.model.errors import ModelError


def open_graphs(path: Path, folder: Path) -> Engine:
    """Opens a checkpoint of a network on a photo side, with the graphs in a folder. Raises ModelError."""
    files = read_files(path)
    return OnnxEngine(files, folder) if isinstance(files.config, TwoSidedConfig) else ZseEngine(files, folder)


class ZseEngine(GraphEngine):
    """A network of ZSE-SBIR that encodes sketches and photos by one ViT, with all patches as tokens."""

    config: ZseConfig

    def __init__(self, files: CheckpointFiles, folder: Path) -> None:
        """Raises ModelError if the checkpoint lacks arrays, or they have other shapes."""
        super().__init__(files, folder)
        config, arrays = files.config, files.arrays
        assert isinstance(config, ZseConfig)
        width, inner, (first, second) = config.width, config.kernel_width, config.relation_hidden
        blocks = (config.grid // 2) ** 2
        try:
            self.prior, self.vocabulary, self.projection, self.parting = knowledge_of(config, arrays)
            encoder = below("encoder.", arrays)
            self._project = encoder["project.weight"].T, encoder["project.bias"]
            self._position, vit = encoder["position"][0], below("vit.", files.photo_side)
            tuning = {"patch_bias": encoder["tokenizer.patch.bias"]}
            tuning |= {f"norm_{part}": encoder[f"norm.{part}"] for part in ("weight", "bias")}
            for name, timm in graphs.BLOCK_PARAMETERS.items():
                tuning[name] = np.stack([encoder[f"blocks.{block}.{timm}"] for block in range(config.depth)])
            self._vit_weights = vit_weights(vit | {"class_token": encoder["ret"][0, 0]}, tuning)
            # The graph also weights best matches, which nobody reads here.
            shapes: dict[str, tuple[int, ...]] = {"scale": (), "bias": ()}
            for side in ("sketch", "photo"):
                shapes |= {f"{side}_worth.weight": (1, width), f"{side}_worth.bias": (1,)}
            unused = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
            self._pair_weights = take_arrays(arrays, cross_shapes(config)) | unused
            shapes = {"downsample.weight": (inner, width, 2, 2), "downsample.bias": (inner,)}
            for number, inputs, outputs in ((0, blocks**2, first), (3, first, second), (6, second, 1)):
                shapes |= {f"mlp.{number}.weight": (outputs, inputs), f"mlp.{number}.bias": (outputs,)}
            self._relation = take_arrays(below("relation.", arrays), shapes)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{files.path} does not hold the tensors of its configuration: {error}; use another checkpoint"
            ) from error
        # (k, d, y, x) -> (y x d, k), for the 2 x 2 tokens of a block in a row.
        self._downsample = self._relation["downsample.weight"].transpose(2, 3, 1, 0).reshape(4 * width, inner)
        self._bias = self._relation["downsample.bias"]

    def encode(self, pictures: Floats, modality: Modality) -> Tokens:
        return Tokens.cat([self._encode_one(picture)[0] for picture in pictures])

    def _encode_one(self, picture: Floats) -> tuple[Tokens, Floats]:
        """Encodes one picture: its tokens, a batch of one, and its attention (depth, heads, n)."""
        count = self.config.grid**2
        x, _, _, attention, _ = self._vit(picture, count)
        weight, bias = self._project
        return Tokens(x @ weight + bias, np.arange(count)[None]), attention

    def relate(self, sketch: Tokens, photos: Tokens) -> Floats:
        return self._read(self._kernel(*self._run_pairs(("aligned_sketch", "aligned_photo"), sketch, photos)))

    def observe(self, pictures: Floats, modality: Modality) -> Observed:
        encoded, grid = [self._encode_one(picture) for picture in pictures], self.config.grid
        attention = encoded[0][1]
        every = grid_maps(np.arange(grid**2), np.ones(grid**2, np.bool_), grid)
        blocks = attention.reshape(*attention.shape[:2], grid, grid)
        tokens = average_variants(Tokens.cat([one for one, _ in encoded]))
        return Observed(tokens, SelfAttention(blocks, (every,) * self.config.selections))

    def align(self, sketch: Tokens, photo: Tokens) -> Aligned:
        names = ("sketch_to_photo", "photo_to_sketch", "aligned_sketch", "aligned_photo")
        forth, back, of_sketch, of_photo = self._run_pairs(names, sketch, photo)
        patches, cells = (of_sketch[0], of_photo[0]), (sketch.positions[0], photo.positions[0])
        lost = lost_by_blocks(self._kernel(of_sketch, of_photo)[0], self._read, patches, cells)
        return Aligned(forth[0], back[0], *patches, cells[1], lost=lost)

    def _kernel(self, sketch: Floats, photo: Floats) -> Floats:
        """Compares blocks of 2 x 2 aligned patch tokens, (p, n, d) each (eq. 8): cosines (p, m, m), rows sketch."""
        one, other = (unit(self._blocks(tokens)) for tokens in (sketch, photo))
        return np.asarray(one @ other.transpose(0, 2, 1))

    def _blocks(self, patches: Floats) -> Floats:
        half, width = self.config.grid // 2, self.config.width
        rows = patches.reshape(len(patches), half, 2, half, 2, width).transpose(0, 1, 3, 2, 4, 5)
        return np.asarray(rows.reshape(len(patches), half * half, 4 * width) @ self._downsample + self._bias)

    def _read(self, kernel: Floats) -> Floats:
        """Turns kernel matrices (p, m, m) into logits (p,) by the relation network (eq. 9)."""
        x, mlp = kernel.reshape(len(kernel), -1), self._relation
        for number in (0, 3):
            x = np.maximum(x @ mlp[f"mlp.{number}.weight"].T + mlp[f"mlp.{number}.bias"], 0)
        return np.asarray((x @ mlp["mlp.6.weight"].T + mlp["mlp.6.bias"])[:, 0])

    @cached_property
    def _vit(self) -> Vit:
        return self._open_vit(graphs.VIT, lambda: self._vit_weights, self._position, self._threads)
