"""Writes the ONNX graphs of two-sided networks, without weights, so that one set serves all of one shape.

They use ONNX Runtime's ``DynamicQuantizeMatMul`` and ``MultiHeadAttention``. Writing needs ``onnx``.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from sketch_search.model.engine.config import TWO_SIDED, TwoSidedConfig, ZseConfig
from sketch_search.model.engine.files import PACKAGED, config_on_photo_side
from sketch_search.model.errors import ModelError
from sketch_search.model.files import MARK, write_files

#: The version of the graphs: a change of names, inputs or operations raises it.
VERSION = 8
VIT, PHOTO_VIT, SECOND_VIT, PAIRS = "vit", "photo-vit", "second-vit", "pairs"
_OPSET, _CONTRIB = 20, "com.microsoft"
#: All matrices of a block are multiplied in int8, except fc2 in these blocks of the second ViT: it reads outliers
#: there, up to 200, beside which all else is rounded away.
SECOND_OUTLIERS = (0, 6, 7)
# The one-dimensional parameters of a block, in the order in which a forward pass meets them, and their names in timm.
BLOCK_PARAMETERS = {
    "norm1_weight": "norm1.weight",
    "norm1_bias": "norm1.bias",
    "qkv_bias": "attn.qkv.bias",
    "proj_bias": "attn.proj.bias",
    "scale1": "ls1.gamma",
    "norm2_weight": "norm2.weight",
    "norm2_bias": "norm2.bias",
    "fc1_bias": "mlp.fc1.bias",
    "fc2_bias": "mlp.fc2.bias",
    "scale2": "ls2.gamma",
}
# The newest version supported by the ONNX Runtimes that pyproject.toml allows.
_IR_VERSION = 10
#: Side of a patch of the ViT for photos alone, in pixels.
SECOND_PATCH = 16
_CROSS_EPS = 1e-5


def folder_name(config: TwoSidedConfig | ZseConfig) -> str:
    """Names the folder by all fields of a configuration that its graphs depend on.

    A network of ZSE-SBIR uses the graphs of a two-sided one of its shape, whatever the second ViT of that.
    """
    names = """width heads depth patch_size mlp_ratio norm_eps encoder_width second_width second_heads cross_heads
        cross_ffn"""
    shape = {name: getattr(config, name, getattr(TWO_SIDED, name)) for name in names.split()}
    digest = hashlib.sha256(json.dumps(shape | {"version": VERSION}, sort_keys=True).encode()).hexdigest()
    return f"graphs-{digest[:8]}"


def is_expressible(config: TwoSidedConfig | ZseConfig) -> bool:
    """Returns True if there can be graphs for this network.

    A two-sided one has a second ViT and is not built like CLIP's. One of ZSE-SBIR is the paper's, without selections of
    tokens, on the ViT of a photo side.
    """
    if isinstance(config, ZseConfig):
        paper = config.ret == "token" and config.cross_attention and config.relation == "kernel-mlp"
        rates = config.keep_sketch, config.keep_photo, config.keep_cross
        return paper and rates == (1, 1, 1) and config.tokenizer == "patch" and bool(config.photo_side)
    return bool(config.second_width) and not config.pre_norm and not config.quick_gelu


def find_graphs(checkpoint: Path) -> Path | None:
    """Finds this user's or the package's graphs for a checkpoint, or None; others may never end. Raises ModelError."""
    config = config_on_photo_side(checkpoint)
    if config is None or not is_expressible(config):
        return None
    parents = [PACKAGED]
    with suppress(RuntimeError):  # this user has no home folder, so no graphs either
        parents.insert(0, own_folder())
    folders = (parent / folder_name(config) for parent in parents)
    return next((folder for folder in folders if folder.is_dir()), None)


def own_folder() -> Path:
    """Returns the folder of this user's graphs."""
    return Path(platformdirs.user_data_dir("sketch-search", appauthor=False))


def write_graphs(config: TwoSidedConfig | ZseConfig, parent: Path) -> Path:
    """Writes the graphs for this configuration into a folder below ``parent``, and returns it. Raises ModelError."""
    if isinstance(config, ZseConfig) or not is_expressible(config):
        raise ModelError(f"there are no graphs for {config.name}; PyTorch runs it, as it is")
    folder = parent / folder_name(config)
    graphs = {
        VIT: _vit(config, config.encoder_width, config.heads, config.patch_size),
        PHOTO_VIT: _vit(config, config.encoder_width, config.heads, config.patch_size, regions=True),
        SECOND_VIT: _vit(config, config.second_width, config.second_heads, SECOND_PATCH, SECOND_OUTLIERS),
        PAIRS: _pairs(config),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_files({folder / f"{name}.onnx": graph for name, graph in graphs.items()})
    except OSError as error:
        raise ModelError(f"{folder} cannot be written ({error}); name a folder that exists and has room") from error
    return folder


class _Graph:
    """A graph under construction. Values are named by strings, as in ONNX."""

    def __init__(self) -> None:
        try:
            import onnx
        except ImportError as error:
            raise ModelError("graphs are written by onnx: pip install 'sketch-search[train]'") from error
        self._onnx = onnx
        self._nodes, self._stored = list[Any](), list[Any]()
        self._weights = set[str]()

    def __call__(self, operation: str, *inputs: str, contrib: bool = False, **attributes: Any) -> str:
        """Adds an operation and returns its one output."""
        return self.several(operation, 1, *inputs, contrib=contrib, **attributes)[0]

    def several(self, operation: str, count: int, *inputs: str, contrib: bool = False, **attributes: Any) -> list[str]:
        """Adds an operation and returns its outputs."""
        outputs = [f"v{len(self._nodes)}.{number}" for number in range(count)]
        domain = _CONTRIB if contrib else ""
        self._nodes.append(self._onnx.helper.make_node(operation, inputs, outputs, domain=domain, **attributes))
        return outputs

    def weight(self, name: str, *sizes: int, int8: bool = False) -> str:
        """Declares a weight that is given when the graph is opened; several operations may use it."""
        if name in self._weights:
            return name
        self._weights.add(name)
        tensor = self._onnx.TensorProto(name=name, dims=sizes)
        tensor.data_type = tensor.INT8 if int8 else tensor.FLOAT
        tensor.data_location = tensor.EXTERNAL
        # A weight without a file is refused; the name is never opened.
        tensor.external_data.add(key="location", value="given")
        self._stored.append(tensor)
        return name

    def number(self, value: int | float | Sequence[int] | np.uint8) -> str:
        """Adds a constant: int64, float32, or uint8 as it is."""
        name = f"n{len(self._stored)}"
        kind = getattr(value, "dtype", np.float32 if isinstance(value, float) else np.int64)
        self._stored.append(self._onnx.numpy_helper.from_array(np.array(value, kind), name))
        return name

    def linear(self, x: str, name: str, inputs: int, outputs: int, *, int8: bool = False) -> str:
        """x @ W + b. With int8, x is rounded to 256 levels between its extremes as it comes."""
        w = self.weight(f"{name}.weight", inputs, outputs, int8=int8)
        b = self.weight(f"{name}.bias", outputs)
        if int8:
            scales = self.weight(f"{name}.scale", outputs)
            return self("DynamicQuantizeMatMul", x, w, scales, "", b, contrib=True)
        return self("Add", self("MatMul", x, w), b)

    def rounded(self, x: str, name: str, inputs: int, outputs: int, *, zero: int) -> str:
        """x @ W + b in int8. x is rounded by fixed steps, so that no row depends on others; 0 is the step ``zero``."""
        step, none = self.weight(f"{name}.step"), self.number(np.uint8(zero))
        steps = self("QuantizeLinear", x, step, none)
        w = self.weight(f"{name}.weight", inputs, outputs, int8=True)
        scale, b = self.weight(f"{name}.scale", outputs), self.weight(f"{name}.bias", outputs)
        return self("MatMulIntegerToFloat", steps, w, step, scale, none, "", b, contrib=True)

    def norm(self, x: str, name: str, width: int, eps: float) -> str:
        """LayerNorm over the last dimension."""
        weight, bias = self.weight(f"{name}.weight", width), self.weight(f"{name}.bias", width)
        return self("LayerNormalization", x, weight, bias, epsilon=eps)

    def heads(self, x: str, heads: int) -> str:
        """(b, n, d) -> (b, heads, n, d / heads)."""
        return self("Transpose", self("Reshape", x, self.number([0, 0, heads, -1])), perm=[0, 2, 1, 3])

    def unit(self, x: str) -> str:
        """Scales along the last dimension to length 1."""
        return self("LpNormalization", x, axis=-1, p=2)

    def bytes(self, name: str, inputs: dict[str, list[str | int]], outputs: dict[str, str]) -> bytes:
        """Returns the model. inputs: sizes by name; outputs: values by the names that callers use."""
        helper, kinds = self._onnx.helper, self._onnx.TensorProto

        def described(shown: str, sizes: list[str | int] | None) -> Any:
            kind = kinds.INT64 if shown in {"kept", "chosen"} else kinds.FLOAT
            return helper.make_tensor_value_info(shown, kind, sizes)

        names = {value: shown for shown, value in outputs.items()}
        for values in (values for node in self._nodes for values in (node.input, node.output)):
            values[:] = [names.get(value, value) for value in values]
        ends = [described(*entry) for entry in inputs.items()], [described(shown, None) for shown in outputs]
        graph = helper.make_graph(self._nodes, name, *ends, self._stored)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name=MARK)
        return bytes(model.SerializeToString())


def _vit(
    config: TwoSidedConfig, width: int, heads: int, patch: int, outliers: Collection[int] = (), *, regions: bool = False
) -> bytes:
    """A ViT with LayerScale, as ``model.torch.two_sided.FrozenVit``, for one picture at a time.

    LayerScale is part of the matrices before it. outliers: the blocks whose fc2 is not in int8.

    Inputs: ``pixels`` (1, 3, H, W); ``position`` (1 + n, width); ``kept``, how many patches leave the last block.
    Outputs: ``tokens`` (1, 1 + kept, width), the class token first; ``chosen`` (kept,), which patches these are,
    ascending: those with the largest ``importance`` (1, n), the attention of the class token in the last block, the
    mean over heads; ``attention`` (depth, heads, n), that of each block; with ``regions`` the tokens of squares of
    2 x 2 patches, ``regions`` (1, n / 4, width), which go through the last block as the mean of their patches, and
    otherwise the patches' before the middle block, ``middle`` (1, n, width).
    """
    g = _Graph()
    eps, hidden = config.norm_eps, int(width * config.mlp_ratio)
    first, x, maps = _tokens(g, width, patch)
    attention, importance, chosen, of_regions, middle = [], "", "", "", ""

    def read(x: str, name: str) -> list[str]:
        """Queries, keys and values of some tokens."""
        y = g.norm(x, f"{name}.norm1", width, eps)
        qkv = g.linear(y, f"{name}.qkv", width, 3 * width, int8=True)
        return g.several("Split", 3, qkv, axis=2, num_outputs=3)

    def after(x: str, mixed: str, index: int) -> str:
        """The rest of a block, for tokens and what they take from all."""
        name = f"blocks.{index}"
        x = g("Add", x, g.linear(mixed, f"{name}.proj", width, width, int8=True))
        y = g.linear(g.norm(x, f"{name}.norm2", width, eps), f"{name}.fc1", width, hidden, int8=True)
        return g("Add", x, g.linear(g("Gelu", y), f"{name}.fc2", hidden, width, int8=index not in outliers))

    for index in range(config.depth):
        name, last = f"blocks.{index}", index == config.depth - 1
        if index == config.depth // 2:
            middle = x
        (of_first, *others), (q, *rest) = read(first, name), read(x, name)
        k, v = (g("Concat", *both, axis=1) for both in zip(others, rest, strict=True))
        of_class, taken = _class_attention(g, of_first, k, v, heads, width)
        attention.append(of_class)

        def mix(q: str, k: str = k, v: str = v) -> str:
            return g("MultiHeadAttention", q, k, v, contrib=True, num_heads=heads)

        if last:
            if regions:
                of_regions = after(_of_squares(g, x, maps), mix(_of_squares(g, q, maps)), index)
            importance = g("ReduceMean", of_class, g.number([1]), keepdims=0)
            _, best = g.several("TopK", 2, importance, "kept", axis=1)
            chosen = g("Reshape", g.several("TopK", 2, best, "kept", axis=1, largest=0)[0], g.number([-1]))
            q, x = g("Gather", q, chosen, axis=1), g("Gather", x, chosen, axis=1)
        x, first = after(x, mix(q), index), after(first, taken, index)
    outputs = {
        "tokens": g.norm(g("Concat", first, x, axis=1), "norm", width, eps),
        "chosen": chosen,
        "importance": importance,
        "attention": g("Concat", *attention, axis=0),
    }
    outputs |= {"regions": g.norm(of_regions, "norm", width, eps)} if regions else {"middle": middle}
    return g.bytes("vit", {"pixels": [1, 3, "height", "width"], "position": ["tokens", width], "kept": [1]}, outputs)


def _tokens(g: _Graph, width: int, patch: int) -> tuple[str, str, str]:
    """The class token, the patches', and the maps that these come from, (1, width, h, w)."""
    kernel, bias = g.weight("patch_kernel", width, 3, patch, patch), g.weight("patch_bias", width)
    maps = g("Conv", "pixels", kernel, bias, strides=[patch, patch], kernel_shape=[patch, patch])
    x = g("Transpose", g("Reshape", maps, g.number([0, 0, -1])), perm=[0, 2, 1])
    places = g("Slice", "position", g.number([1]), g.number([1 << 31]), g.number([0]))
    first = g("Slice", "position", g.number([0]), g.number([1]), g.number([0]))
    # The class token has outliers of its own. Rounded apart, it leaves the patches finer steps, and has finer ones.
    x = g("Add", x, places)
    return g("Add", g.weight("class_token", 1, 1, width), first), x, maps


def _of_squares(g: _Graph, tokens: str, maps: str) -> str:
    """The means of 2 x 2 patches, which stand as in these maps."""
    there = g("Reshape", g("Transpose", tokens, perm=[0, 2, 1]), g("Shape", maps))
    means = g("AveragePool", there, kernel_shape=[2, 2], strides=[2, 2])
    return g("Transpose", g("Reshape", means, g.number([0, 0, -1])), perm=[0, 2, 1])


def _class_attention(g: _Graph, query: str, key: str, value: str, heads: int, width: int) -> tuple[str, str]:
    """The class token's attention to each patch, (1, heads, n), and what it takes from all tokens, (1, 1, width)."""
    logits = g("MatMul", g.heads(query, heads), g("Transpose", g.heads(key, heads), perm=[0, 1, 3, 2]))
    weights = g("Softmax", g("Mul", logits, g.number((width / heads) ** -0.5)), axis=-1)
    of_patches = g("Slice", weights, g.number([1]), g.number([1 << 31]), g.number([3]))
    taken = g("Reshape", g("MatMul", weights, g.heads(value, heads)), g.number([0, 1, -1]))
    return g("Squeeze", of_patches, g.number([2])), taken


def _pairs(config: TwoSidedConfig) -> bytes:
    """Cross-attention (3.3) and best matches of one sketch and p photos, without prior, guesses and cosine of [Ret].

    See ``model.torch.relation`` for the formulas.

    Inputs: ``sketch`` (1, n_s, d) and ``photos`` (p, n_p, d). Outputs: ``logits`` (p,); for explanations, the attention
    weights ``sketch_to_photo`` (p, heads, n_s, n_p) and ``photo_to_sketch`` (p, heads, n_p, n_s), the patch tokens
    after it, ``aligned_sketch`` (p, n_s - 1, d) and ``aligned_photo`` (p, n_p - 1, d), and how much each counts,
    ``sketch_worth`` (p, n_s - 1) and ``photo_worth`` (p, n_p - 1).
    """
    g = _Graph()
    width, heads = config.width, config.cross_heads
    patches_only = g.number([1]), g.number([1 << 31]), g.number([1])

    def of_sketch(branch: str, part: str) -> str:
        return g.heads(g.linear("sketch", f"{branch}.{part}", width, width), heads)

    # Each side's query is of its own branch; the other branch reads key and value (eq. 6). Attention weights sum
    # to 1, so that biases are added to the one sketch in the place of all photos; that of the keys changes nothing.
    forth = g("Transpose", _products(g, "sketch.key", of_sketch("sketch", "query"), width, heads), perm=[0, 2, 3, 1])
    forth = g("Softmax", forth, axis=-1)
    back = g("Softmax", _products(g, "photo.query", of_sketch("photo", "key"), width, heads, biased=True), axis=-1)
    shown = g("MatMul", forth, g.heads(g("MatMul", "photos", g.weight("sketch.value.weight", width, width)), heads))
    shown = g("Slice", g("Reshape", g("Transpose", shown, perm=[0, 2, 1, 3]), g.number([0, 0, width])), *patches_only)
    bias = g("Reshape", g.weight("sketch.value.bias", width), g.number([1, -1]))
    bias = g.linear(bias, "sketch.out", width, width)
    out = g("MatMul", shown, g.weight("sketch.out.weight", width, width))
    by_head = g("Reshape", g.weight("photo.out.weight", width, width), g.number([1, heads, -1, width]))
    values = g("Reshape", g("MatMul", of_sketch("photo", "value"), by_head), g.number([-1, width]))
    values = g("Add", values, g("Mul", g.weight("photo.out.bias", width), g.number(1 / heads)))
    drawn = g("MatMul", g("Slice", g("Reshape", back, g.number([0, 0, -1])), *patches_only), values)
    shown = g("Add", out, g("Add", g("Slice", "sketch", *patches_only), bias))
    patches = {"sketch": _finish_branch(g, config, "sketch", shown)}
    drawn = g("Add", g("Slice", "photos", *patches_only), drawn)
    patches["photo"] = _finish_branch(g, config, "photo", drawn)
    worth = {
        side: g("Softmax", g("Squeeze", g.linear(tokens, f"{side}_worth", width, 1), g.number([2])), axis=-1)
        for side, tokens in patches.items()
    }
    photo = g("Transpose", g.unit(patches["photo"]), perm=[0, 2, 1])
    kernel = g("MatMul", g.unit(patches["sketch"]), photo)
    matched = {side: g("ReduceMax", kernel, g.number([n]), keepdims=0) for side, n in (("sketch", 2), ("photo", 1))}
    sums = [g("ReduceSum", g("Mul", worth[side], matched[side]), g.number([1]), keepdims=0) for side in matched]
    total = g("Mul", g("Add", *sums), g("Mul", g.weight("scale"), g.number(0.5)))
    outputs = {
        "logits": g("Add", total, g.weight("bias")),
        "sketch_to_photo": forth,
        "photo_to_sketch": g("Transpose", back, perm=[0, 2, 1, 3]),
        "aligned_sketch": patches["sketch"],
        "aligned_photo": patches["photo"],
        "sketch_worth": worth["sketch"],
        "photo_worth": worth["photo"],
    }
    return g.bytes(
        "pairs", {"sketch": [1, "sketch_tokens", width], "photos": ["photos", "photo_tokens", width]}, outputs
    )


def _products(g: _Graph, name: str, drawn: str, width: int, heads: int, *, biased: bool = False) -> str:
    """The products of the photos' projection ``name`` and heads of the sketch: (p, n_p, heads, n_s).

    Weights and sketch are multiplied first: that is less than projecting photos, as long as a sketch's tokens are fewer
    than the numbers of a head. So are values of the sketch and the weights that read them.
    """
    weight = g("Reshape", g.weight(f"{name}.weight", width, width), g.number([1, width, heads, -1]))
    to_heads = g("Mul", g("Transpose", drawn, perm=[0, 1, 3, 2]), g.number((width / heads) ** -0.5))
    by_head = g("MatMul", g("Transpose", weight, perm=[0, 2, 1, 3]), to_heads)
    matrix = g("Reshape", g("Transpose", by_head, perm=[0, 2, 1, 3]), g.number([width, -1]))
    product = g("MatMul", "photos", matrix)
    if biased:
        bias = g("Reshape", g.weight(f"{name}.bias", width), g.number([1, heads, 1, -1]))
        product = g("Add", product, g("Reshape", g("MatMul", bias, to_heads), g.number([-1])))
    return g("Reshape", product, g.number([0, 0, heads, -1]))


def _finish_branch(g: _Graph, config: TwoSidedConfig, side: str, mixed: str) -> str:
    """The rest of a branch, for patch tokens."""
    y = g.norm(mixed, f"{side}.norm1", config.width, _CROSS_EPS)
    z = g.rounded(y, f"{side}.ffn.0", config.width, config.cross_ffn, zero=128)
    # Nothing is below step 0, as after ReLU.
    z = g.rounded(z, f"{side}.ffn.3", config.cross_ffn, config.width, zero=0)
    return g.norm(g("Add", y, z), f"{side}.norm2", config.width, _CROSS_EPS)
