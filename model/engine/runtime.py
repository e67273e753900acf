"""Runs networks by ONNX Runtime: on a photo side, one picture at a time since int8 scales by batch, and ZSE-SBIR."""

import ctypes
import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sketch_search.model.engine import graphs, surface
from sketch_search.model.engine.config import Modality, ModelConfig, TwoSidedConfig, ZseConfig
from sketch_search.model.engine.files import SCALE, ZSE, CheckpointFiles, check_memory, read_files
from sketch_search.model.engine.tokens import (
    Floats,
    Tokens,
    average_variants,
    cells_of_patches,
    change_planes,
    round_matrix,
    unit,
    widen,
)
from sketch_search.model.errors import ModelError
from sketch_search.model.files import read_regular

# Otherwise, on import, it writes an id of this machine into the user's folder, and reports to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

# The most bytes of a graph, which has no weights.
_MOST_BYTES = 16 << 20
# What the networks of cross-attention multiply is rounded by steps of its range: this many deviations from the mean,
# which LayerNorm sets. On 6,000 pairs, relation scores differ from those in float32 by 0.0004 at most.
_FAR = 5
# Steps above 0.
_STEPS_OF_SIGNED, _STEPS_OF_POSITIVE = 127, 255
# What a ViT's matrices read has outliers in a few channels, which LayerNorm sets. Its outputs are divided by this power
# of their usual size, and the columns of the matrix multiplied by it, so that both round well (SmoothQuant, section 4).
_SMOOTHED, _USUAL = 0.5, 3
_HEAD = ("ret.weight", "centre", "tokens.weight", "tokens.bias")
_Weights: TypeAlias = Mapping[str, NDArray[Any]]
# Runs a ViT on a picture (3, H, W): its tokens (1, 1 + kept, width), which patches these are, ascending, the importance
# (n,) and the attention (depth, heads, n) of all patches, and of a photo the tokens of its regions (1, m, width).
Vit: TypeAlias = Callable[[Floats, int], Sequence[Any]]


class GraphEngine(surface.Engine):
    """Runs ONNX graphs in a folder with weights that are given to them. Opens no graph yet."""

    kind, device, dtype = ZSE, "cpu", "int8"

    def __init__(self, files: CheckpointFiles, folder: Path) -> None:
        """Raises ModelError if the checkpoint lacks arrays, or they have other shapes."""
        self.config, self.calibration = files.config, files.calibration
        self._files, self._folder, self._threads = files, folder, surface.threads()
        self._pair_weights: _Weights = {}
        try:
            knowledge = surface.knowledge_of(files.config, files.arrays)
            self.prior, self.vocabulary, self.projection, self.parting = knowledge
            self._take(files.arrays)
        # Of a vocabulary's arrays, those that are missing are arguments that are missing.
        except (KeyError, TypeError, ValueError) as error:
            problem = f"{files.path} does not hold the tensors of its configuration: {error}"
            raise ModelError(f"{problem}; use another checkpoint") from error

    @abstractmethod
    def _take(self, arrays: _Weights) -> None:
        """Takes the weights from a checkpoint's arrays. Raises KeyError or ValueError."""

    def _run_pairs(self, names: tuple[str, ...], sketch: Tokens, photos: Tokens) -> list[Floats]:
        inputs = {"sketch": widen(sketch.features), "photos": np.ascontiguousarray(widen(photos.features))}
        return list(self._pairs.run(names, inputs, _ONLY_WHAT_IS_ASKED))

    @cached_property
    def _pairs(self) -> onnxruntime.InferenceSession:
        return self._open(graphs.PAIRS, lambda: _pairs_in_int8(self._pair_weights), self._threads)

    def _open_vit(self, graph: str, weights: Callable[[], _Weights], position: NDArray[Any], threads: int) -> Vit:
        session = self._open(graph, weights, threads)
        names = ("tokens", "chosen", "importance", "attention", "regions" if graph == graphs.PHOTO_VIT else "middle")
        where = position.astype(np.float32)

        def run(picture: Floats, kept: int) -> Sequence[Any]:
            inputs = {"pixels": picture[None], "position": where, "kept": np.array([kept], np.int64)}
            tokens, chosen, importance, attention, others = session.run(names, inputs)
            return tokens, chosen, importance[0], attention, others

        return run

    def _open(self, name: str, weights: Callable[[], _Weights], threads: int) -> onnxruntime.InferenceSession:
        """Opens a graph with these weights. Raises ModelError: it is missing, damaged, or does not fit."""
        session = self._session(name, weights(), threads)
        # glibc would keep tens of MiB that the copies of weights took.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
        if trim is not None:
            trim(0)
        return session

    def _session(self, name: str, weights: _Weights, threads: int) -> onnxruntime.InferenceSession:
        # A function of its own, so that its copies are freed before the trim.
        options = session_options(threads)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.array(w, order="C")) for w in weights.values()]
        options.add_external_initializers(list(weights), values)
        path = self._folder / f"{name}.onnx"
        advice = "rebuild it by sketch-search model export"
        try:
            return open_session(path, read_regular(path, _MOST_BYTES), options, advice)
        except OSError as error:
            raise ModelError(f"{path} cannot be used ({error}); {advice}") from error


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Returns the options of a graph that computes by so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # the errors raised contain the messages
    # Threads that spin while waiting take the cores from numpy and the other graphs: a search takes twice as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_session(
    path: Path, graph: bytes, options: onnxruntime.SessionOptions, advice: str = "install sketch-search again"
) -> onnxruntime.InferenceSession:
    """Opens a graph with the bytes of its file. Raises ModelError, with ``advice``: it is damaged, or does not fit."""
    try:
        return onnxruntime.InferenceSession(
            graph,
            options,
            providers=["CPUExecutionProvider"],
            # Otherwise it prints the error, and tries again.
            enable_fallback=0,
            # The sum and LayerNorm in one take nine times as long as the LayerNorm, and a quarter of a pair's time.
            disabled_optimizers=["SkipLayerNormFusion"],
        )
    except Exception as error:  # ONNX Runtime has no common type for its own errors.
        check_memory(error)
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} cannot be used ({reason}); {advice}") from error


class OnnxEngine(GraphEngine):
    """A two-sided network on this machine's CPU."""

    config: TwoSidedConfig

    def _take(self, arrays: _Weights) -> None:
        side = self._files.photo_side
        self._head = {name: arrays[f"encoder.head.{name}"] for name in _HEAD}
        self._position, tuning = arrays["encoder.position"], surface.below("encoder.tuning.", arrays)
        self._sketch_weights = vit_weights(surface.below("vit.", side), tuning)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("ret_term.scale", "relation.scale", "relation.bias"), ())
        for branch in ("sketch", "photo"):
            shapes |= {f"relation.{branch}_worth.weight": (1, self.config.width), f"relation.{branch}_worth.bias": (1,)}
        pair_weights = take_arrays(arrays, shapes | cross_shapes(self.config))
        self._ret_scale, self._pair_weights = pair_weights.pop("ret_term.scale"), pair_weights
        self._photo_head = {name: array.astype(np.float32) for name, array in surface.below("head.", side).items()}
        # A patch alone is class token and mean patch in one.
        of_class, of_mean = np.split(self._photo_head["from_first.weight"], 2, axis=1)
        self._from_patch = np.ascontiguousarray((of_class + of_mean).T)

    def encode(self, pictures: Floats, modality: Modality) -> Tokens:
        count = self.config.token_count(modality) - 1
        if modality == "sketch":
            return Tokens.cat([self._sketch(picture, count)[0] for picture in pictures])
        if len(pictures) == 1:
            return self._photo(pictures[0], count)[0]
        # Pictures in parallel, each in one thread, take three quarters of the time.
        _ = self._photo_vit, self._second_vit  # opened once, before threads ask for them
        with ThreadPoolExecutor(self._threads) as pool:
            encoded = pool.map(lambda picture: self._photo(picture, count), pictures)
            return Tokens.cat([tokens for tokens, *_ in encoded])

    def encode_whole(self, variants: Floats) -> tuple[Tokens, Floats]:
        encoded = [self._sketch(picture, self.config.token_count("sketch") - 1) for picture in variants]
        return Tokens.cat([tokens for tokens, *_ in encoded]), encoded[0][2]

    def relate(self, sketch: Tokens, photos: Tokens) -> Floats:
        logits = self._run_pairs(("logits",), sketch, photos)[0]
        return np.asarray(logits + self._ret_scale * (unit(photos.ret) @ unit(sketch.ret)[0]))

    def observe(self, pictures: Floats, modality: Modality) -> surface.Observed:
        config, patches = self.config, self.config.patches(modality)
        kept = config.token_count(modality) - 1
        everything, local = None, None
        if modality == "photo":
            everything, attention, importance, of_patches = self._photo(pictures[0], patches**2)
            local, chosen = self._local(of_patches), _most_important(importance, kept)
            features = everything.features[:, np.concatenate([[0], 1 + chosen])]
            tokens = Tokens(features, everything.positions[:, chosen])
        else:
            encoded = [self._sketch(picture, kept) for picture in pictures]
            tokens, attention = average_variants(Tokens.cat([tokens for tokens, *_ in encoded])), encoded[0][1]
        under = cells_of_patches(config.grid, patches)
        shown = attention[:, :, under]
        shown = shown * (attention.sum(axis=2, keepdims=True) / shown.sum(axis=2, keepdims=True))
        mask = surface.grid_maps(tokens.positions[0], np.ones(kept, np.bool_), config.grid)
        blocks = shown.reshape(*shown.shape[:2], config.grid, config.grid)
        return surface.Observed(tokens, surface.SelfAttention(blocks, (mask,)), everything, local)

    def align(self, sketch: Tokens, photo: Tokens) -> surface.Aligned:
        names = ("sketch_to_photo", "photo_to_sketch", "aligned_sketch", "aligned_photo", "sketch_worth", "photo_worth")
        forth, back, of_sketch, of_photo, worth, worth_of_photo = (x[0] for x in self._run_pairs(names, sketch, photo))
        matching = surface.Matching(float(self._pair_weights["relation.scale"]), worth, worth_of_photo)
        return surface.Aligned(forth, back, of_sketch, of_photo, photo.positions[0], matching)

    def _sketch(self, picture: Floats, count: int) -> tuple[Tokens, Floats, Floats]:
        """Encodes one sketch: its tokens, attention (depth, heads, n), and patches (2, n, e) for ``encode_whole``."""
        config, head = self.config, self._head
        size = (config.sketch_size, config.sketch_size)
        pixels = change_planes(picture, lambda plane: plane.resize(size, Image.Resampling.BILINEAR))
        x, _, importance, attention, middle = self._sketch_vit(pixels, config.patches("sketch") ** 2)
        summary = np.concatenate([unit(x[:, 0]), unit(x[:, 1:].mean(axis=1))], axis=-1)
        ret = unit(unit(summary @ head["ret.weight"].T) - head["centre"])
        chosen = _most_important(importance, count)
        patches = x[:, 1 + chosen] @ head["tokens.weight"].T + head["tokens.bias"]
        cells = cells_of_patches(config.patches("sketch"), config.grid)[chosen]
        tokens = Tokens(np.concatenate([ret[:, None], patches], axis=1), cells[None], summary)
        return tokens, attention, np.concatenate([middle, x[:, 1:]])

    def _photo(self, picture: Floats, count: int) -> tuple[Tokens, Floats, Floats, Floats]:
        """Encodes one photo: its tokens, attention and importance of patches (n,), and the ViT's tokens of patches."""
        head = self._photo_head
        x, chosen, importance, attention, squares = self._photo_vit(picture, count)
        second, *_ = self._second_vit(picture, 0)
        a, b = unit(unit(x[:, 0]) - head["mean"]), unit(unit(second[:, 0]) - head["second_mean"])
        ret = unit(unit(np.concatenate([a, b], axis=-1) @ head["ret.weight"].T) - head["centre"])
        patches = x[:, 1:] @ head["tokens.weight"].T + head["tokens.bias"]
        features = np.concatenate([ret[:, None], patches], axis=1)
        tokens = Tokens(features, chosen[None], regions=self._local(squares))
        return self.reduce_regions(tokens), attention, importance, x[0, 1:]

    def _local(self, patches: Floats) -> Floats:
        """Computes the local [Ret] of patch tokens (..., w), as of photos that show a patch alone."""
        return unit(unit(patches @ self._from_patch) - self._photo_head["centre"])

    # The graphs. Sketches arrive one at a time, and use all threads; photos arrive in batches, and use one thread each.

    @cached_property
    def _sketch_vit(self) -> Vit:
        return self._open_vit(graphs.VIT, lambda: self._sketch_weights, self._position, self._threads)

    @cached_property
    def _photo_vit(self) -> Vit:
        vit, tuning = (surface.below(prefix, self._files.photo_side) for prefix in ("vit.", "tuning."))
        return self._open_vit(graphs.PHOTO_VIT, lambda: vit_weights(vit, tuning), vit["position"], 1)

    @cached_property
    def _second_vit(self) -> Vit:
        vit, tuning = (surface.below(prefix, self._files.photo_side) for prefix in ("second_vit.", "second_tuning."))
        outliers = graphs.SECOND_OUTLIERS
        return self._open_vit(graphs.SECOND_VIT, lambda: vit_weights(vit, tuning, outliers), vit["position"], 1)


_ONLY_WHAT_IS_ASKED = onnxruntime.RunOptions()
_ONLY_WHAT_IS_ASKED.only_execute_path_to_fetches = True


def _pairs_in_int8(weights: _Weights) -> _Weights:
    """Names the weights that compare pairs as their graph does, matrices (inputs, outputs), and rounds some to int8."""
    named: dict[str, NDArray[Any]] = {
        name.removeprefix("cross.").removeprefix("relation."): np.asarray(array.T, np.float32)
        for name, array in weights.items()
        if name != "cross.sketch.key.bias"
    }
    for side in ("sketch", "photo"):
        names = ("norm1.bias", "norm1.weight", "ffn.0.weight", "ffn.0.bias")
        mean, spread, matrix, bias = (named[f"{side}.{name}"] for name in names)
        read = (abs(mean) + _FAR * abs(spread)).max() / _STEPS_OF_SIGNED
        hidden = (mean @ matrix + bias + _FAR * np.sqrt(spread**2 @ matrix**2)).max() / _STEPS_OF_POSITIVE
        for name, step in ((f"{side}.ffn.0", read), (f"{side}.ffn.3", hidden)):
            rounded, scale = round_matrix(named[f"{name}.weight"].T)
            named |= {f"{name}.weight": rounded.T, f"{name}.scale": scale, f"{name}.step": np.array(step, np.float32)}
    return named


def cross_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the weights of cross-attention, by their names in a checkpoint."""
    width, hidden = config.width, config.cross_ffn
    shapes: dict[str, tuple[int, ...]] = {}
    layers = {
        **dict.fromkeys(("query", "key", "value", "out"), (width, width)),
        **dict.fromkeys(("norm1", "norm2"), (width,)),
        "ffn.0": (hidden, width),
        "ffn.3": (width, hidden),
    }
    for side in ("sketch", "photo"):
        for layer, shape in layers.items():
            shapes |= {f"cross.{side}.{layer}.weight": shape, f"cross.{side}.{layer}.bias": shape[:1]}
    return shapes


def take_arrays(arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
    """Takes arrays of these names and shapes. Raises KeyError or ValueError if one is missing or has another shape."""
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has the shape {arrays[name].shape}, not {shape}")
    return {name: arrays[name] for name in shapes}


def vit_weights(
    vit: Mapping[str, NDArray[Any]], tuning: Mapping[str, NDArray[Any]], outliers: Collection[int] = ()
) -> dict[str, NDArray[Any]]:
    """Names the weights of a ViT as its graph does. The matrices become (inputs, outputs). outliers: as for its graph.

    LayerScale multiplies the outputs of proj and fc2, so that their columns take it.
    """
    named = {
        "patch_kernel": vit["patch_kernel"],
        "patch_bias": tuning["patch_bias"],
        "class_token": vit["class_token"][None, None],
        "norm.weight": tuning["norm_weight"],
        "norm.bias": tuning["norm_bias"],
    }
    for index in range(len(vit["qkv"])):
        name = f"blocks.{index}"
        for norm, matrix, scaled in ((1, "qkv", None), (None, "proj", 1), (2, "fc1", None), (None, "fc2", 2)):
            weight = vit[matrix][index] * vit[matrix + SCALE][index].astype(np.float32)[:, None]
            bias = tuning[f"{matrix}_bias"][index]
            if scaled is not None:
                scale = tuning[f"scale{scaled}"][index].astype(np.float32)
                weight, bias = weight * scale[:, None], bias * scale
            if norm is not None:
                gain, shift = (np.float32(tuning[f"norm{norm}_{part}"][index]) for part in ("weight", "bias"))
                size = np.maximum((abs(shift) + _USUAL * abs(gain)) ** _SMOOTHED, np.finfo(np.float32).tiny)
                named |= {f"{name}.norm{norm}.weight": gain / size, f"{name}.norm{norm}.bias": shift / size}
                weight = weight * size
            if not (matrix == "fc2" and index in outliers):
                weight, named[f"{name}.{matrix}.scale"] = round_matrix(weight)
            named |= {f"{name}.{matrix}.weight": weight.T, f"{name}.{matrix}.bias": bias}
    return {name: array if array.dtype == np.int8 else array.astype(np.float32) for name, array in named.items()}


def _most_important(importance: Floats, count: int) -> NDArray[np.int64]:
    """Chooses the ``count`` most important of n tokens: (count,) indices, ascending; ties go to the first."""
    return np.sort(np.argsort(-importance, kind="stable")[:count])


def open_graphs(path: Path, folder: Path) -> surface.Engine:
    """Opens a checkpoint of a network on a photo side, with the graphs in a folder. Raises ModelError."""
    files = read_files(path)
    return OnnxEngine(files, folder) if isinstance(files.config, TwoSidedConfig) else ZseEngine(files, folder)


class ZseEngine(GraphEngine):
    """A network of ZSE-SBIR that encodes sketches and photos by one ViT, with all patches as tokens."""

    config: ZseConfig

    def _take(self, arrays: _Weights) -> None:
        config, encoder = self.config, surface.below("encoder.", arrays)
        width, inner, (first, second) = config.width, config.kernel_width, config.relation_hidden
        blocks = (config.grid // 2) ** 2
        self._project = encoder["project.weight"].T, encoder["project.bias"]
        self._position, vit = encoder["position"][0], surface.below("vit.", self._files.photo_side)
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
        self._relation = take_arrays(surface.below("relation.", arrays), shapes)
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

    def observe(self, pictures: Floats, modality: Modality) -> surface.Observed:
        encoded, grid = [self._encode_one(picture) for picture in pictures], self.config.grid
        attention = encoded[0][1]
        all_cells = surface.grid_maps(np.arange(grid**2), np.ones(grid**2, np.bool_), grid)
        blocks = attention.reshape(*attention.shape[:2], grid, grid)
        tokens = average_variants(Tokens.cat([tokens for tokens, _ in encoded]))
        return surface.Observed(tokens, surface.SelfAttention(blocks, (all_cells,) * self.config.selections))

    def align(self, sketch: Tokens, photo: Tokens) -> surface.Aligned:
        names = ("sketch_to_photo", "photo_to_sketch", "aligned_sketch", "aligned_photo")
        forth, back, of_sketch, of_photo = self._run_pairs(names, sketch, photo)
        patches, cells = (of_sketch[0], of_photo[0]), (sketch.positions[0], photo.positions[0])
        lost = surface.lost_by_blocks(self._kernel(of_sketch, of_photo)[0], self._read, patches, cells)
        return surface.Aligned(forth[0], back[0], *patches, cells[1], lost=lost)

    def _kernel(self, sketch: Floats, photo: Floats) -> Floats:
        """Compares blocks of 2 x 2 aligned patch tokens, (p, n, d) each (eq. 8): cosines (p, m, m), rows sketch."""
        half, sides = self.config.grid // 2, list[Floats]()
        for patches in (sketch, photo):
            rows = patches.reshape(len(patches), half, 2, half, 2, -1).transpose(0, 1, 3, 2, 4, 5)
            sides.append(unit(rows.reshape(len(patches), half * half, -1) @ self._downsample + self._bias))
        return np.asarray(sides[0] @ sides[1].transpose(0, 2, 1))

    def _read(self, kernel: Floats) -> Floats:
        """Turns kernel matrices (p, m, m) into logits (p,) by the relation network (eq. 9)."""
        x, mlp = kernel.reshape(len(kernel), -1), self._relation
        for number in (0, 3):
            x = np.maximum(x @ mlp[f"mlp.{number}.weight"].T + mlp[f"mlp.{number}.bias"], 0)
        return np.asarray((x @ mlp["mlp.6.weight"].T + mlp["mlp.6.bias"])[:, 0])

    @cached_property
    def _vit(self) -> Vit:
        return self._open_vit(graphs.VIT, lambda: self._vit_weights, self._position, self._threads)
