"""Composes the network of ZSE-SBIR as in Figure 2 of the paper, optionally from pretrained ViTs."""

import math
import time
from functools import cache
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from sketch_search.model.engine import UNCALIBRATED, Calibration, Modality, ModelConfig, TwoSidedConfig, ZseConfig
from sketch_search.model.errors import ModelError
from sketch_search.model.terminal import expand_home
from sketch_search.model.training.network.relation import (
    BestMatchRelation,
    CrossAttention,
    KernelRelation,
    PairRelation,
    RetTerm,
    Side,
    Tokens,
    Unaligned,
)
from sketch_search.model.training.network.two_sided import TwoSidedEncoder, vit_of_photo_side
from sketch_search.model.training.network.vit import (
    HUB,
    ConvolutionalEncoder,
    Encoder,
    EncoderTrace,
    RetNetwork,
    VitLayout,
    check_reachable,
    find_cached,
    load_vit,
)

# Names in the encoder for names in timm.
_RENAMED = {
    "cls_token": "ret",
    "pos_embed": "position",
    "patch_embed.proj.weight": "tokenizer.patch.weight",
    "patch_embed.proj.bias": "tokenizer.patch.bias",
}
# How often the product by which precisions are compared is timed.
_TURNS = 9


class Network(RetNetwork):
    """Images to tokens (``encode``), tokens to half a cross-attention (``project``), pairs to logits (``relate``)."""

    kind: ClassVar[str] = "zse"
    config_kind = ModelConfig
    config: ModelConfig

    def __init__(self, config: ModelConfig, calibration: Calibration = UNCALIBRATED) -> None:
        super().__init__(config, calibration)
        self.encoder: Encoder | ConvolutionalEncoder | TwoSidedEncoder
        self.relation: KernelRelation | BestMatchRelation
        if isinstance(config, ZseConfig):
            self.encoder = Encoder(config) if config.encoder == "vit" else ConvolutionalEncoder(config)
            self.cross = CrossAttention(config) if config.cross_attention else Unaligned()
            kinds: dict[str, type[KernelRelation | BestMatchRelation]]
            kinds = {"kernel-mlp": KernelRelation, "pair-mlp": PairRelation, "best-match": BestMatchRelation}
            self.relation = kinds[config.relation](config)
            self.ret_term = RetTerm() if config.relation_ret else None
        else:
            assert isinstance(config, TwoSidedConfig)
            self.encoder = TwoSidedEncoder(config)
            self.cross = CrossAttention(config)
            self.relation = BestMatchRelation(config)
            self.ret_term = RetTerm()

    def _encode(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None) -> Tokens:
        """(b, 3, H, W) normalised pixels -> tokens."""
        tokens: Tokens = self.encoder(images, modality, trace)
        return tokens

    def project(self, tokens: Tokens, modality: Modality) -> Side:
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


def as_zse(network: RetNetwork) -> Network:
    """Returns the network if it compares pairs, else raises ModelError."""
    if not isinstance(network, Network):
        raise ModelError(
            f"{network.config.name} is a network of kind {network.kind!r}, with one vector for each "
            "picture; this needs a network of ZSE-SBIR, such as the default one"
        )
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
    named = source.startswith(HUB)
    if not named and (path.suffix == ".safetensors" or "/" in source or not timm.is_model(source)):
        raise ModelError(f"{source} is neither a safetensors file nor a timm model tag, also {HUB}OWNER/NAME")
    known = None if named else timm.get_pretrained_cfg(source)
    repository = source.removeprefix(HUB) if named else known and known.hf_hub_id
    if repository and find_cached(repository, (SAFETENSORS_SINGLE_FILE, PYTORCH_WEIGHTS_NAME)) is None:
        check_reachable(repository)
    try:
        state: dict[str, torch.Tensor] = timm.create_model(source, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the weights of {source} could not be fetched ({error}); give a safetensors file instead"
        ) from error
    return state


def from_backbone(config: ZseConfig, weights: dict[str, torch.Tensor], seed: int = 0) -> Network:
    """Makes a network from a ViT, photo side or ResNet-50 w/o SA; learnable tokenizers are zero. Raises ModelError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(config)
    encoder = network.encoder
    if isinstance(encoder, ConvolutionalEncoder):
        left = encoder.map.load_state_dict(weights, strict=False)
        if left.missing_keys:
            raise ModelError(f"the backbone has no {left.missing_keys[0]}; w/o SA starts from timm's resnet50")
        return network
    assert isinstance(encoder, Encoder)
    if config.photo_side:
        from timm.layers.pos_embed import resample_abs_pos_embed

        tensors = vit_of_photo_side(weights)
        tensors["position"] = resample_abs_pos_embed(tensors["position"], [config.grid] * 2)
    else:
        if encoder.tokenizer.learnable is not None:
            nn.init.zeros_(encoder.tokenizer.learnable.layers[-1].weight)  # type: ignore[arg-type]
        hidden = int(config.vit_width * config.mlp_ratio)
        layout = VitLayout(config.patch_size, config.vit_width, config.depth, config.heads, hidden, config.norm_eps)
        vit = layout.build(config.image_size)
        load_vit(vit, weights)
        tensors = {_RENAMED.get(name, name): value for name, value in vit.state_dict().items()}
    state = encoder.state_dict()
    encoder.load_state_dict(state | {name: value for name, value in tensors.items() if name in state})
    return network


def fastest_dtype(network: RetNetwork, device: torch.device) -> torch.dtype:
    """Chooses float16 on CUDA, bfloat16 on a CPU that is faster with it, else float32."""
    if isinstance(network, Network) and device.type == "cuda":
        return torch.float16
    if isinstance(network, Network) and device.type == "cpu" and multiplies_bf16():
        return torch.bfloat16
    return torch.float32


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
