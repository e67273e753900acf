"""The networks with one vector for each picture, of Sketch-an-Anchor and of CLIP-AT.

Sketch-an-Anchor (Ribeiro and Ponti, 2023) is a ViT with retrieval tokens. CLIP-AT (Sain et al., 2023) is a frozen ViT,
such as CLIP's, with learned prompts and LayerNorms.
"""

import copy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from sketch_search.model.engine import UNCALIBRATED, Calibration, Modality, NetworkConfig
from sketch_search.model.engine.config import Size
from sketch_search.model.errors import ModelError
from sketch_search.model.torch.relation import Tokens
from sketch_search.model.torch.vit import EncoderTrace, RetNetwork, VitLayout, load_vit, mean_attention

# The training pulls a retrieval token to one of these: a word vector of the class, or the mean of its photos.
Anchor = Literal["word", "visual"]
ANCHORS: tuple[Anchor, ...] = ("word", "visual")
_MODALITIES: tuple[Modality, ...] = ("sketch", "photo")
# The name of a part that sketches and photos share.
_BOTH = "both"
# The spread of the random numbers with which prompts start.
_PROMPT_SPREAD = 0.02


@dataclass(frozen=True, kw_only=True)
class OneVectorConfig(NetworkConfig):
    """Settings of networks with one vector. released_padding: pad to black squares, as CLIP-AT's public code."""

    vit: VitLayout
    released_padding: bool = False

    def problems(self) -> list[str]:
        size, patch = self.image_size, self.vit.patch_size
        return [f"{size} pixels are not a multiple of the patch size {patch}"] if size % patch else []

    @property
    def grid(self) -> int:
        return self.image_size // self.vit.patch_size

    def token_count(self, modality: Modality) -> int:
        return 1


@dataclass(frozen=True, kw_only=True)
class AnchorConfig(OneVectorConfig):
    """Sketch-an-Anchor. anchors: each with a token and a projection (3.4), none for the baseline (3.2); units: 4.2."""

    anchors: tuple[Anchor, ...] = ANCHORS
    units: Size = 512

    def problems(self) -> list[str]:
        known = self.anchors == tuple(name for name in ANCHORS if name in self.anchors)
        return super().problems() + ([] if known else [f"anchors must be some of {ANCHORS}, in this order"])

    @property
    def width(self) -> int:
        return self.units


class GatedProjection(nn.Module):
    """A linear projection whose outputs are gated by themselves (Miech et al., 2017): y * sigmoid(G y), y = P x."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.project, self.gate = nn.Linear(width, units), nn.Linear(units, units)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(x)
        gated: torch.Tensor = y * self.gate(y).sigmoid()
        return gated


class DynamicAverage(nn.Module):
    """The average of some vectors by weights that depend on them (Sukhbaatar et al., 2015). It starts as the mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.query.weight)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """(b, k, d) -> (b, d)."""
        average: torch.Tensor = (self.query(vectors).softmax(dim=1) * vectors).sum(dim=1)
        return average


class AnchorNetwork(RetNetwork):
    """A ViT in which retrieval tokens take the place of the class token; one network for sketches and photos (3.4)."""

    kind: ClassVar[str] = "sketch-an-anchor"
    config_kind = AnchorConfig
    config: AnchorConfig

    def __init__(self, config: AnchorConfig, calibration: Calibration = UNCALIBRATED) -> None:
        super().__init__(config, calibration)
        count, width = max(1, len(config.anchors)), config.vit.width
        self.vit = config.vit.build(config.image_size)
        if self.vit.cls_token is not None:
            # The retrieval tokens take the place of the class token.
            self.vit.cls_token.requires_grad_(False)
        self.tokens = nn.Parameter(torch.zeros(1, count, width))
        self.projections = nn.ModuleList(GatedProjection(width, config.units) for _ in range(count))
        self.average = DynamicAverage(config.width) if count > 1 else None
        nn.init.trunc_normal_(self.tokens, std=0.02)

    def retrieval_tokens(self, images: torch.Tensor, trace: EncoderTrace | None = None) -> torch.Tensor:
        """(b, 3, H, W) normalised pixels -> (b, k, d), the retrieval tokens as they leave the ViT."""
        vit, count = self.vit, self.tokens.shape[1]
        x = vit._pos_embed(vit.patch_embed(images))
        x = vit.norm_pre(torch.cat([self.tokens.expand(len(x), -1, -1), x[:, 1:]], dim=1))
        blocks: Any = vit.blocks
        for block in blocks:
            if trace is not None:
                trace.add(mean_attention(block.attn, block.norm1(x), count)[:, :, -(self.config.grid**2) :])
            x = block(x)
        tokens: torch.Tensor = vit.norm(x)[:, :count]
        return tokens

    def represent(self, tokens: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """(b, k, d) from ``retrieval_tokens`` -> (b, width), the retrieval vectors, and (b, units) of each anchor."""
        hidden = tuple(project(token) for project, token in zip(self.projections, tokens.unbind(1), strict=True))
        return hidden[0] if self.average is None else self.average(torch.stack(hidden, dim=1)), hidden

    def _encode(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None) -> Tokens:
        """(b, 3, H, W) normalised pixels -> tokens that are [Ret] alone, the retrieval vectors."""
        return Tokens.of_ret(self.represent(self.retrieval_tokens(images, trace))[0])


def anchor_network_from(config: AnchorConfig, weights: dict[str, torch.Tensor], seed: int = 0) -> AnchorNetwork:
    """Makes a network whose ViT starts with weights under timm's names. Raises ModelError for another ViT's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AnchorNetwork(config)
    load_vit(network.vit, weights)
    blank = torch.zeros(1, 3, config.image_size, config.image_size)
    with torch.no_grad():
        # Each retrieval token starts as the class token, position included.
        network.tokens.copy_(network.vit._pos_embed(network.vit.patch_embed(blank))[:, :1].expand_as(network.tokens))
    return network


@dataclass(frozen=True, kw_only=True)
class ClipAtConfig(OneVectorConfig):
    """The configuration of a network of CLIP-AT. Sketches and photos share both for fine-grained pairs (A)."""

    prompts: Annotated[int, Field(ge=0, le=4096)] = 3
    shared_prompts: bool = False
    shared_norms: bool = False

    @property
    def width(self) -> int:
        """The length of a picture's vector."""
        return self.vit.projection or self.vit.width


class LayerNorms(nn.Module):
    """The LayerNorms of a ViT of timm. They are taken out of it, so that others can be used with it."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.first, self.last = vit.norm_pre, vit.norm
        self.attention = nn.ModuleList(block.norm1 for block in vit.blocks)
        self.mlp = nn.ModuleList(block.norm2 for block in vit.blocks)
        vit.norm_pre, vit.norm = nn.Identity(), nn.Identity()
        for block in vit.blocks:
            block.norm1, block.norm2 = nn.Identity(), nn.Identity()


class PromptedVit(nn.Module):
    """A frozen ViT without LayerNorms. Prompts and LayerNorms are given to it with each batch."""

    def __init__(self, vit: Any, layout: VitLayout) -> None:
        super().__init__()
        self.vit = vit
        self.projection = nn.Linear(layout.width, layout.projection, bias=False) if layout.projection else None
        self.requires_grad_(False)

    def forward(
        self, images: torch.Tensor, prompts: torch.Tensor, norms: LayerNorms, trace: EncoderTrace | None = None
    ) -> torch.Tensor:
        """(b, 3, H, W) -> (b, width or projection), the class token. prompts: (k, width), without positions."""
        vit = self.vit
        x = vit._pos_embed(vit.patch_embed(images))
        cells = x.shape[1] - 1
        x = norms.first(torch.cat([x, prompts.to(x.dtype).expand(len(x), -1, -1)], dim=1))
        for block, norm1, norm2 in zip(vit.blocks, norms.attention, norms.mlp, strict=True):
            y = norm1(x)
            if trace is not None:
                trace.add(mean_attention(block.attn, y, 1)[:, :, 1 : 1 + cells])
            x = x + block.attn(y)
            x = x + block.mlp(norm2(x))
        token: torch.Tensor = norms.last(x[:, 0])
        return token if self.projection is None else self.projection(token)


class Learned(nn.Module):
    """The learned prompts and LayerNorms, for sketches and for photos, or for both together (A)."""

    def __init__(self, config: ClipAtConfig, norms: LayerNorms) -> None:
        super().__init__()
        of_prompts, of_norms = ((_BOTH,) if s else _MODALITIES for s in (config.shared_prompts, config.shared_norms))
        starts = {name: _PROMPT_SPREAD * torch.randn(config.prompts, config.vit.width) for name in of_prompts}
        self.prompts = nn.ParameterDict(starts)
        self.norms = nn.ModuleDict({name: copy.deepcopy(norms) for name in of_norms})

    def of(self, modality: Modality) -> tuple[torch.Tensor, LayerNorms]:
        """Returns the prompts (k, d) and the LayerNorms of sketches or of photos."""
        prompts: torch.Tensor = self.prompts[modality if modality in self.prompts else _BOTH]
        norms = self.norms[modality if modality in self.norms else _BOTH]
        assert isinstance(norms, LayerNorms)
        return prompts, norms


class ClipAtNetwork(RetNetwork):
    """A frozen ViT, stored once, with prompts and LayerNorms for sketches and for photos (A)."""

    kind: ClassVar[str] = "clip-at"
    config_kind = ClipAtConfig
    config: ClipAtConfig

    def __init__(self, config: ClipAtConfig, calibration: Calibration = UNCALIBRATED) -> None:
        super().__init__(config, calibration)
        vit = config.vit.build(config.image_size)
        norms = LayerNorms(vit)
        self.encoder = PromptedVit(vit, config.vit)
        self.learned = Learned(config, norms)

    def _encode(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None) -> Tokens:
        """(b, 3, H, W) normalised pixels -> tokens that are [Ret] alone, the vectors of the pictures."""
        return Tokens.of_ret(self.encoder(images, *self.learned.of(modality), trace))


def clip_at_network_from(config: ClipAtConfig, weights: dict[str, torch.Tensor], seed: int = 0) -> ClipAtNetwork:
    """Makes a network from a ViT's weights under timm's names, with random prompts. Raises ModelError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ClipAtNetwork(config)
        whole = config.vit.build(config.image_size)
    tensors = dict(weights)
    projection = tensors.pop("projection.weight", None)
    load_vit(whole, tensors)
    norms = LayerNorms(whole)
    network.encoder.vit.load_state_dict(whole.state_dict())
    if network.encoder.projection is not None:
        weight = network.encoder.projection.weight
        if projection is None or projection.shape != weight.shape:
            raise ModelError(f"the backbone has no projection to {len(weight)} numbers, which {config.name} needs")
        with torch.no_grad():
            weight.copy_(projection)
    for norm in network.learned.norms.values():
        norm.load_state_dict(norms.state_dict())
    return network
