"""The network of CLIP-AT (Sain et al., 2023): a frozen ViT, such as CLIP's, with learned prompts and LayerNorms."""

import copy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from sketch_search.model.engine import UNCALIBRATED, Calibration, Modality
from sketch_search.model.errors import ModelError
from sketch_search.model.training.network.encoder import EncoderTrace
from sketch_search.model.training.network.relation import Tokens
from sketch_search.model.training.network.ret_network import RetNetwork
from sketch_search.model.training.network.vit import OneVectorConfig, VitLayout, load_vit, mean_attention

_MODALITIES: tuple[Modality, ...] = ("sketch", "photo")
# The name of a part that sketches and photos share.
_BOTH = "both"
# The spread of the random numbers with which prompts start.
_PROMPT_SPREAD = 0.02


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


class FrozenVit(nn.Module):
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
                attention = mean_attention(block.attn, y, 1)[:, :, 1 : 1 + cells]
                trace.attention.append(attention)
                trace.positions.append(torch.arange(cells, device=x.device).expand(len(x), -1))
            x = x + block.attn(y)
            x = x + block.mlp(norm2(x))
        token: torch.Tensor = norms.last(x[:, 0])
        return token if self.projection is None else self.projection(token)


class Learned(nn.Module):
    """The learned prompts and LayerNorms, for sketches and for photos, or for both together (A)."""

    def __init__(self, config: ClipAtConfig, norms: LayerNorms) -> None:
        super().__init__()
        self.prompts = nn.ParameterDict(
            {
                name: nn.Parameter(_PROMPT_SPREAD * torch.randn(config.prompts, config.vit.width))
                for name in _names(config.shared_prompts)
            }
        )
        self.norms = nn.ModuleDict({name: copy.deepcopy(norms) for name in _names(config.shared_norms)})

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
        self.encoder = FrozenVit(vit, config.vit)
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


def _names(shared: bool) -> tuple[str, ...]:
    return (_BOTH,) if shared else _MODALITIES
