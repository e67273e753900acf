"""The network of CLIP-AT (Sain et al., 2023): a frozen ViT, such as CLIP's, with learned prompts and LayerNorms."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from model.engine import UNCALIBRATED, Calibration, Modality
from model.errors import ModelError
from model.network.encoder import EncoderTrace
from model.network.ret_network import RetNetwork
from model.network.tokens import Tokens
from model.network.vit import OneVectorConfig, VitLayout, load_vit, mean_attention

_MODALITIES: tuple[Modality, ...] = ("sketch", "photo")
# The name of a part that sketches and photos share.
_BOTH = "both"
# The spread of the random numbers with which prompts start.
_PROMPT_SPREAD = 0.02
# Names of the LayerNorms in a ViT of timm, and in ``LayerNorms``.
_NORMS = (
    (re.compile(r"norm_pre\."), "first."),
    (re.compile(r"blocks\.(\d+)\.norm1\."), r"attention.\1."),
    (re.compile(r"blocks\.(\d+)\.norm2\."), r"mlp.\1."),
    (re.compile(r"norm\."), "last."),
)


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
    """The LayerNorms of a ViT, stored apart from it."""

    def __init__(self, layout: VitLayout) -> None:
        super().__init__()

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(layout.width, eps=layout.norm_eps)

        self.first = norm() if layout.clip else nn.Identity()
        self.attention = nn.ModuleList(norm() for _ in range(layout.depth))
        self.mlp = nn.ModuleList(norm() for _ in range(layout.depth))
        self.last = norm()


class FrozenVit(nn.Module):
    """A frozen ViT without LayerNorms. Prompts and LayerNorms are given to it with each batch."""

    def __init__(self, layout: VitLayout, image_size: int) -> None:
        super().__init__()
        self.vit: Any = layout.build(image_size)
        self.vit.norm_pre, self.vit.norm = nn.Identity(), nn.Identity()
        for block in self.vit.blocks:
            block.norm1, block.norm2 = nn.Identity(), nn.Identity()
        self.projection = nn.Linear(layout.width, layout.projection, bias=False) if layout.projection else None
        self.requires_grad_(False)

    def forward(
        self, images: torch.Tensor, prompts: torch.Tensor, norms: LayerNorms, trace: EncoderTrace | None = None
    ) -> torch.Tensor:
        """(b, 3, H, W) normalised pixels -> (b, width or projection), the class token as it leaves the ViT.

        prompts: (k, width), which follow the patches and have no position. ``trace`` records the class token's
        attention.
        """
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
    """All that CLIP-AT learns: prompts and LayerNorms, for sketches and for photos, or for both together (A)."""

    def __init__(self, config: ClipAtConfig) -> None:
        super().__init__()
        layout = config.vit
        self.prompts = nn.ParameterDict(
            {
                name: nn.Parameter(_PROMPT_SPREAD * torch.randn(config.prompts, layout.width))
                for name in _names(config.shared_prompts)
            }
        )
        self.norms = nn.ModuleDict({name: LayerNorms(layout) for name in _names(config.shared_norms)})

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
        self.encoder = FrozenVit(config.vit, config.image_size)
        self.learned = Learned(config)

    def encode(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        """(b, 3, H, W) normalised pixels -> tokens that are [Ret] alone, the vectors of the pictures."""
        return Tokens.of_ret(self.encoder(images, *self.learned.of(modality), trace))


def clip_at_network_from(config: ClipAtConfig, weights: dict[str, torch.Tensor], seed: int = 0) -> ClipAtNetwork:
    """Makes a network whose ViT and LayerNorms start with weights under timm's names; prompts are random.

    The projection is "projection.weight". Raises ModelError if they are the weights of another ViT.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ClipAtNetwork(config)
        whole = config.vit.build(config.image_size)
    given = dict(weights)
    projection = given.pop("projection.weight", None)
    load_vit(whole, given)
    rest, norms = split_norms(whole.state_dict())
    network.encoder.vit.load_state_dict(rest)
    if network.encoder.projection is not None:
        weight = network.encoder.projection.weight
        if projection is None or projection.shape != weight.shape:
            raise ModelError(f"the backbone has no projection to {len(weight)} numbers, which {config.name} needs")
        with torch.no_grad():
            weight.copy_(projection)
    for own in network.learned.norms.values():
        own.load_state_dict(norms)
    return network


def _names(shared: bool) -> tuple[str, ...]:
    return (_BOTH,) if shared else _MODALITIES


def split_norms(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Splits the weights of a ViT under timm's names into those of ``FrozenVit.vit`` and those of ``LayerNorms``."""
    rest, norms = {}, {}
    for key, value in state.items():
        found = [pattern.sub(name, key, count=1) for pattern, name in _NORMS if pattern.match(key)]
        if found:
            norms[found[0]] = value
        else:
            rest[key] = value
    return rest, norms
