"""The network of CLIP-AT (Sain et al., 2023): a frozen ViT, such as CLIP's, with learned prompts and LayerNorms."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from model.errors import ModelError
from model.network.calibration import UNCALIBRATED, Calibration
from model.network.config import Modality, problem_of_words, within
from model.network.layers import EncoderTrace
from model.network.ret_network import RetNetwork
from model.network.tokens import Tokens
from model.network.vit import FrozenVit, LayerNorms, OneVectorConfig, VitLayout, load_vit, split_norms
from model.words import Names

_MODALITIES: tuple[Modality, ...] = ("sketch", "photo")
# The name of what sketches and photos share.
_BOTH = "both"
# How large the random numbers are with which prompts start.
_PROMPT_SPREAD = 0.02
_BOUNDS: dict[str, tuple[float, float]] = {
    "image_size": (1, 2048),
    "prompts": (0, 4096),
    "prototypes": (0, 65536),
    "mean": (-1000, 1000),
    "std": (1e-6, 1000),
}


@dataclass(frozen=True)
class ClipAtConfig(OneVectorConfig):
    """Everything needed to rebuild a network of CLIP-AT and to feed it. Letters are sections of its supplementary.

    Attributes:
        name: the recipe it came from, shown to users.
        vit: the frozen ViT.
        image_size: side of the square input in pixels.
        prompts: how many learned tokens the input of the ViT gets.
        shared_prompts, shared_norms: whether sketches and photos have the same prompts, and the same LayerNorms (A):
            both for fine-grained networks, neither for those of categories.
        prototypes, words, drawn: of the prior and of the vocabulary, as in ``ModelConfig``.
        mean, std: normalisation of the pixels, which lie in [0, 1] before it.
    """

    name: str
    vit: VitLayout
    image_size: int = 224
    prompts: int = 3
    shared_prompts: bool = False
    shared_norms: bool = False
    prototypes: int = 0
    words: tuple[Names, ...] = ()
    drawn: tuple[int, ...] = ()
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    # The public code pads sketches and photos to squares, in black, and crops neither.
    released_padding: bool = False

    def __post_init__(self) -> None:
        problems = [
            f"{name} must lie in {least:g} to {most:g}"
            for name, (least, most) in _BOUNDS.items()
            if not within(getattr(self, name), least, most)
        ]
        if not problems and self.image_size % self.vit.patch_size:
            problems.append(f"{self.image_size} pixels are no whole number of patches of {self.vit.patch_size}")
        if problem := problem_of_words(self.words, self.drawn):
            problems.append(problem)
        if problems:
            raise ModelError("unusable network configuration: " + "; ".join(problems))

    @property
    def width(self) -> int:
        """Numbers in the vector of a picture."""
        return self.vit.projection or self.vit.width

    @property
    def grid(self) -> int:
        """Patches along one side of the input."""
        return self.image_size // self.vit.patch_size


class Learned(nn.Module):
    """All that CLIP-AT learns: prompts and LayerNorms, of sketches and of photos, or of both together (A)."""

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
        """The prompts (k, d) and the LayerNorms of sketches or of photos."""
        prompts: torch.Tensor = self.prompts[modality if modality in self.prompts else _BOTH]
        norms = self.norms[modality if modality in self.norms else _BOTH]
        assert isinstance(norms, LayerNorms)
        return prompts, norms


class ClipAtNetwork(RetNetwork):
    """A frozen ViT, stored once, with prompts and LayerNorms for sketches and for photos (A).

    The vector of a picture is the class token, projected as CLIP does it.
    """

    kind: ClassVar[str] = "clip-at"
    config: ClipAtConfig

    def __init__(self, config: ClipAtConfig, calibration: Calibration = UNCALIBRATED) -> None:
        super().__init__(config, calibration)
        self.encoder = FrozenVit(config.vit, config.image_size)
        self.learned = Learned(config)
        self._add_parts()

    @staticmethod
    def read_config(text: str) -> ClipAtConfig:
        """The configuration in a checkpoint's metadata. Raises ModelError for one that cannot be used."""
        return ClipAtConfig.from_json(text)

    def encode(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        """(b, 3, H, W) normalised pixels -> tokens that are [Ret] alone, the vectors of the pictures."""
        return Tokens.of_ret(self.encoder(images, *self.learned.of(modality), trace))


def clip_at_network_from(config: ClipAtConfig, weights: dict[str, torch.Tensor], seed: int = 0) -> ClipAtNetwork:
    """A network whose ViT, and all of whose LayerNorms, start with these weights. Prompts are random, from ``seed``.

    weights: of a ViT, under timm's key names, and of its projection as "projection.weight" if the config has one.
    Raises ModelError where they are those of another ViT.
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


def with_learned(network: ClipAtNetwork, learned: Learned) -> ClipAtNetwork:
    """The same frozen ViT, which is not copied, with other prompts and LayerNorms; in evaluation mode."""
    with torch.device("meta"):
        other = ClipAtNetwork(dataclasses.replace(network.config), network.calibration)
    other.encoder, other.learned = network.encoder, learned
    other.prior, other.vocabulary = network.prior, network.vocabulary
    return other.eval()


def _names(shared: bool) -> tuple[str, ...]:
    return (_BOTH,) if shared else _MODALITIES
