"""Defines the networks of ZSE-SBIR and of the default, and runs networks by PyTorch as an engine."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cache
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from sketch_search.model import engine
from sketch_search.model.engine import Tokens as Arrays
from sketch_search.model.engine import average_variants as averaged
from sketch_search.model.engine.surface import lost_by_blocks
from sketch_search.model.errors import ModelError
from sketch_search.model.terminal import expand_home
from sketch_search.model.torch import vit
from sketch_search.model.torch.relation import (
    BestMatchRelation,
    CrossAttention,
    KernelRelation,
    PairRelation,
    RetTerm,
    Side,
    Tokens,
    Unaligned,
    as_tensor,
)
from sketch_search.model.torch.two_sided import TwoSidedEncoder, vit_of_photo_side

# Names in the encoder for names in timm.
_RENAMED = {
    "cls_token": "ret",
    "pos_embed": "position",
    "patch_embed.proj.weight": "tokenizer.patch.weight",
    "patch_embed.proj.bias": "tokenizer.patch.bias",
}
# How often the product by which precisions are compared is timed.
_TURNS = 9


class Network(vit.RetNetwork):
    """Images to tokens (``encode``), tokens to half a cross-attention (``project``), pairs to logits (``relate``)."""

    kind: ClassVar[str] = "zse"
    config_kind = engine.ModelConfig
    config: engine.ModelConfig

    def __init__(self, config: engine.ModelConfig, calibration: engine.Calibration = engine.UNCALIBRATED) -> None:
        super().__init__(config, calibration)
        self.encoder: vit.Encoder | vit.ConvolutionalEncoder | TwoSidedEncoder
        self.relation: KernelRelation | BestMatchRelation
        if isinstance(config, engine.ZseConfig):
            self.encoder = vit.Encoder(config) if config.encoder == "vit" else vit.ConvolutionalEncoder(config)
            self.cross = CrossAttention(config) if config.cross_attention else Unaligned()
            kinds: dict[str, type[KernelRelation | BestMatchRelation]]
            kinds = {"kernel-mlp": KernelRelation, "pair-mlp": PairRelation, "best-match": BestMatchRelation}
            self.relation = kinds[config.relation](config)
            self.ret_term = RetTerm() if config.relation_ret else None
        else:
            assert isinstance(config, engine.TwoSidedConfig)
            self.encoder, self.cross = TwoSidedEncoder(config), CrossAttention(config)
            self.relation, self.ret_term = BestMatchRelation(config), RetTerm()

    def _encode(self, images: torch.Tensor, modality: engine.Modality, trace: vit.EncoderTrace | None) -> Tokens:
        """(b, 3, H, W) normalised pixels -> tokens."""
        tokens: Tokens = self.encoder(images, modality, trace)
        return tokens

    def project(self, tokens: Tokens, modality: engine.Modality) -> Side:
        """Computes the part of a pair's score that depends on one image alone; once for each image."""
        return self.cross.project(tokens, modality)

    def align(self, sketch: Side, photo: Side) -> tuple[Tokens, Tokens]:
        """Aligns b sketches, or one for all photos, with b photos -> their tokens after cross-attention."""
        pair: tuple[Tokens, Tokens] = self.cross(sketch, photo)
        return pair

    def relate(self, sketch: Side, photo: Side) -> torch.Tensor:
        """b sketches, or one for all, with b photos -> (b,) float32 logits of the relation scores (eq. 9)."""
        return self.relation_logits(*self.align(sketch, photo), sketch, photo)

    def relation_logits(self, aligned_sketch: Tokens, aligned_photo: Tokens, sketch: Side, photo: Side) -> torch.Tensor:
        """Computes (b,) float32 logits of pairs that ``align`` has aligned."""
        with torch.autocast(sketch.features.device.type, enabled=False):
            logits: torch.Tensor = self.relation(aligned_sketch, aligned_photo)
            if self.ret_term is not None:
                logits = logits + self.ret_term(sketch.ret, photo.ret)
        return logits

    @property
    def precision(self) -> torch.dtype:
        return next((value.dtype for value in self.cross.parameters()), torch.float32)

    def set_precision(self, dtype: torch.dtype) -> Self:
        """Computes pairs and two-sided encoders in ``dtype``; encoders that select between blocks stay float32."""
        if isinstance(self.encoder, TwoSidedEncoder):
            self.encoder.photo_side.set_precision(dtype)
        self.cross.to(dtype)
        if isinstance(self.relation, KernelRelation):
            self.relation.downsample.to(dtype)
        return self


def as_zse(network: vit.RetNetwork) -> Network:
    """Returns the network if it compares pairs, else raises ModelError."""
    if not isinstance(network, Network):
        problem = f"{network.config.name} is a network of kind {network.kind!r}, with one vector for each picture"
        raise ModelError(f"{problem}; this needs a network of ZSE-SBIR, such as the default one")
    return network


def read_backbone(source: str) -> dict[str, torch.Tensor]:
    """Reads weights under timm's names from a file, a timm tag or "hf-hub:OWNER/NAME". Raises ModelError."""
    import timm
    from huggingface_hub.constants import PYTORCH_WEIGHTS_NAME, SAFETENSORS_SINGLE_FILE

    path = expand_home(source)
    if path.is_file():
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ModelError(f"{path} is not a safetensors file ({error})") from error
    named = source.startswith(vit.HUB)
    if not named and (path.suffix == ".safetensors" or "/" in source or not timm.is_model(source)):
        raise ModelError(f"{source} is neither a safetensors file nor a timm model tag, also {vit.HUB}OWNER/NAME")
    known = None if named else timm.get_pretrained_cfg(source)
    repository = source.removeprefix(vit.HUB) if named else known and known.hf_hub_id
    named_files = (known.hf_hub_filename,) if known and known.hf_hub_filename else ()
    if repository:
        # timm finds it where it is then. It would try again and again for a minute to reach the hub.
        vit.fetch(repository, (*named_files, SAFETENSORS_SINGLE_FILE, PYTORCH_WEIGHTS_NAME, *vit.CLIP_FILES))
    try:
        state: dict[str, torch.Tensor] = timm.create_model(source, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise ModelError(f"the weights of {source} could not be fetched ({error}); name a safetensors file") from error
    return state


def from_backbone(config: engine.ZseConfig, weights: dict[str, torch.Tensor], seed: int = 0) -> Network:
    """Makes a network from a ViT, photo side or ResNet-50 w/o SA; learnable tokenizers are zero. Raises ModelError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(config)
    encoder = network.encoder
    if isinstance(encoder, vit.ConvolutionalEncoder):
        left = encoder.map.load_state_dict(weights, strict=False)
        if left.missing_keys:
            raise ModelError(f"the backbone has no {left.missing_keys[0]}; w/o SA starts from timm's resnet50")
        return network
    assert isinstance(encoder, vit.Encoder)
    if config.photo_side:
        from timm.layers.pos_embed import resample_abs_pos_embed

        tensors = vit_of_photo_side(weights)
        tensors["position"] = resample_abs_pos_embed(tensors["position"], [config.grid] * 2)
    else:
        if encoder.tokenizer.learnable is not None:
            nn.init.zeros_(encoder.tokenizer.learnable.layers[-1].weight)  # type: ignore[arg-type]
        hidden = int(config.vit_width * config.mlp_ratio)
        layout = vit.VitLayout(config.patch_size, config.vit_width, config.depth, config.heads, hidden, config.norm_eps)
        plain = layout.build(config.image_size)
        vit.load_vit(plain, weights)
        tensors = {_RENAMED.get(name, name): value for name, value in plain.state_dict().items()}
    state = encoder.state_dict()
    encoder.load_state_dict(state | {name: value for name, value in tensors.items() if name in state})
    return network


def fastest_dtype(network: vit.RetNetwork, device: torch.device) -> torch.dtype:
    """Chooses float16 on CUDA, bfloat16 on a CPU that is faster with it, else float32."""
    if not isinstance(network, Network):
        return torch.float32
    on_cpu = torch.bfloat16 if device.type == "cpu" and multiplies_bf16() else torch.float32
    return torch.float16 if device.type == "cuda" else on_cpu


@cache
@torch.inference_mode()
def multiplies_bf16() -> bool:
    """True if this CPU multiplies bfloat16 faster than float32, as measured once in some 20 ms."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if supported is None or not supported():
        return False
    least = {torch.float32: math.inf, torch.bfloat16: math.inf}
    # By turns, and the least times count, because other work disturbs both.
    for dtype in _TURNS * tuple(least):
        x, weight = torch.ones(256, 384, dtype=dtype), torch.ones(384, 384, dtype=dtype)
        began = time.perf_counter()
        F.linear(x, weight)
        least[dtype] = min(least[dtype], time.perf_counter() - began)
    return least[torch.bfloat16] < least[torch.float32]


# Tokens of sketches, and those of all patches of the first; and what encodes pixels (b, 3, H, W).
Encoded: TypeAlias = tuple[Tokens, torch.Tensor | None]
Run: TypeAlias = Callable[[torch.Tensor], Encoded]

# Photos that are encoded at once. On a CPU such chunks are computed side by side, each in threads of its own.
CHUNK, GPU_CHUNK = 16, 256
# Numbers of sketches, such as a sketch's variants, for which a GPU keeps the pass of the network as one graph.
GRAPHS = 8


class Captured:
    """A pass over pictures of one shape as one CUDA graph: a GPU waits for each of hundreds of calls otherwise."""

    def __init__(self, run: Run, pictures: torch.Tensor) -> None:
        """Raises RuntimeError if a step cannot be captured."""
        self._pictures, self._graph, stream = pictures.clone(), torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        # The first pass prepares what cannot be captured.
        with torch.cuda.stream(stream):
            run(self._pictures)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(self._graph):
            self._found = run(self._pictures)

    def __call__(self, pictures: torch.Tensor) -> Encoded:
        self._pictures.copy_(pictures)
        self._graph.replay()
        return self._found


class TorchEngine(engine.Engine):
    """A network in evaluation mode, on the device and in the precision that it has."""

    def __init__(self, network: vit.RetNetwork) -> None:
        self.network = network.eval()
        self.kind, self.config, self.calibration = network.kind, network.config, network.calibration
        self.prior, self.vocabulary = network.prior, network.vocabulary
        self.projection, self.parting = network.projection, network.parting
        self._device = next(network.parameters()).device
        self.device = self._device.type
        self.dtype = str(network.precision).removeprefix("torch.")
        self.captured: dict[tuple[int, bool], Run] = {}
        self._replaying = threading.Lock()

    def encode(self, pictures: engine.Floats, modality: engine.Modality) -> Arrays:
        chunk = CHUNK if self.device == "cpu" else GPU_CHUNK
        parts = [pictures[start : start + chunk] for start in range(0, len(pictures), chunk)]
        threads = torch.get_num_threads()
        workers = min(threads, len(parts)) if self.device == "cpu" else 1
        if workers == 1:
            return Arrays.cat([self._encode(part, modality) for part in parts])
        # PyTorch's own threads would wait for each other at each step, several times as long if another needs a core.
        try:
            with ThreadPoolExecutor(workers, "encode", torch.set_num_threads, (threads // workers,)) as pool:
                return Arrays.cat(list(pool.map(lambda part: self._encode(part, modality), parts)))
        finally:
            # The pool's threads set the number for themselves and so for all threads that start later.
            torch.set_num_threads(threads)

    @torch.inference_mode()
    def _encode(self, pictures: engine.Floats, modality: engine.Modality) -> Arrays:
        if modality == "sketch":
            return self._sketches(pictures, whole=False)[0]
        return self.reduce_regions(as_arrays(self.network.encode(pictures, modality)))

    @torch.inference_mode()
    def encode_whole(self, variants: engine.Floats) -> tuple[Arrays, engine.Floats]:
        tokens, patches = self._sketches(variants, whole=True)
        if patches is None:
            raise ModelError(f"{self.config.name} has no tokens of all patches; only two-sided networks have")
        return tokens, patches

    def _sketches(self, pictures: engine.Floats, *, whole: bool) -> tuple[Arrays, engine.Floats | None]:
        """Encodes sketches: their tokens, and if asked for, those of all patches of the first."""

        def run(pixels: torch.Tensor) -> Encoded:
            trace = vit.EncoderTrace(attends=False) if whole else None
            tokens = self.network.encode(pixels, "sketch", trace)
            return tokens, None if trace is None or trace.patches is None else trace.patches[:, 0].float()

        pixels, key = self._tensor(pictures).float(), (len(pictures), whole)
        # What a graph finds lies where its next replay writes.
        with self._replaying if self.device == "cuda" else nullcontext():
            if self.device == "cuda" and len(pictures) <= GRAPHS and key not in self.captured:
                try:
                    self.captured[key] = Captured(run, pixels)
                except RuntimeError:
                    self.captured[key] = run
            tokens, patches = self.captured.get(key, run)(pixels)
            return as_arrays(tokens), None if patches is None else as_array(patches)

    @torch.inference_mode()
    def relate(self, sketch: Arrays, photos: Arrays) -> engine.Floats:
        network = as_zse(self.network)
        sides = network.project(self._tokens(sketch), "sketch"), network.project(self._tokens(photos), "photo")
        return as_array(network.relate(*sides)).astype(np.float32)

    @torch.inference_mode()
    def observe(self, pictures: engine.Floats, modality: engine.Modality) -> engine.Observed:
        trace, grid = vit.EncoderTrace(), self.config.grid
        tokens = averaged(self.reduce_regions(as_arrays(self.network.encode(pictures, modality, trace))))
        pairs = zip(trace.positions, trace.attention, strict=True)
        blocks = [engine.grid_maps(as_array(cells[0]), as_array(heads[0].float()), grid) for cells, heads in pairs]
        kept = [engine.grid_maps(as_array(cells[0]), np.ones(cells.shape[1], np.bool_), grid) for cells in trace.kept]
        everything = None if trace.everything is None else as_arrays(trace.everything)
        local = None if trace.local is None else as_array(trace.local[0].float())
        return engine.Observed(tokens, engine.SelfAttention(np.stack(blocks), tuple(kept)), everything, local)

    @torch.inference_mode()
    def align(self, sketch: Arrays, photo: Arrays) -> engine.Aligned | None:
        network = self.network
        if not isinstance(network, Network):
            return None
        sides = network.project(self._tokens(sketch), "sketch"), network.project(self._tokens(photo), "photo")
        forth, back = (as_array(weights[0]) for weights in network.cross.attention(*sides))
        of_sketch, of_photo = network.align(*sides)
        drawn, shown = as_arrays(of_sketch), as_arrays(of_photo)
        patches, cells = (drawn.patches[0], shown.patches[0]), (drawn.positions[0], shown.positions[0])
        matching, lost, relation = None, None, network.relation
        if isinstance(relation, BestMatchRelation):
            worths = (as_array(worth[0]) for worth in relation.token_weights(of_sketch, of_photo))
            matching = engine.Matching(float(relation.scale), *worths)
        elif not relation.untransposed:
            kernel, read = as_array(relation.kernel(of_sketch, of_photo)[0]), relation.read
            lost = lost_by_blocks(kernel, lambda k: as_array(read(self._tensor(k))), patches, cells)
        return engine.Aligned(forth, back, *patches, cells[1], matching, lost)

    def _tensor(self, values: NDArray[Any]) -> torch.Tensor:
        return as_tensor(values, self._device)

    def _tokens(self, tokens: Arrays) -> Tokens:
        summary = None if tokens.summary is None else self._tensor(tokens.summary).float()
        return Tokens(self._tensor(tokens.features).float(), self._tensor(tokens.positions).long(), summary)


def find_device(name: str) -> torch.device:
    """Returns the device of this name; "auto" is a GPU if there is one. Raises ModelError if it cannot be used."""
    try:
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        # PyTorch goes on with pages of tables.
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ModelError(f"device {name!r} cannot be used here ({reason}); use cpu") from error
    return device


def as_arrays(tokens: Tokens) -> Arrays:
    """Returns the tokens as arrays: float32, on the CPU."""
    summary, regions = (None if part is None else as_array(part.float()) for part in (tokens.summary, tokens.regions))
    return Arrays(as_array(tokens.features.float()), as_array(tokens.positions), summary, regions)


def as_array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
