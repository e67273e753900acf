"""Describes plain ViTs, of timm and of CLIP, and ``RetNetwork``, the base of all networks that encode by them."""

import copy
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from sketch_search.model import engine
from sketch_search.model.engine import Modality, ZseConfig
from sketch_search.model.engine.config import Size, kept_count
from sketch_search.model.errors import ModelError
from sketch_search.model.torch.relation import Tokens, as_tensor, attention_weights, select_tokens
from sketch_search.model.words import Names

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

# The width of a head in nearly all ViTs.
_HEAD = 64
# The names of architectures. timm also takes names of places to download from, which a recipe may not name.
_ARCHITECTURE = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class VitLayout:
    """A plain ViT with a class token, without its weights.

    clip: a LayerNorm before the blocks and no patch bias. quick_gelu: x sigmoid(1.702 x). projection: 0 for none.
    """

    patch_size: Size
    width: Size
    depth: Size
    heads: Size
    mlp_width: Size
    norm_eps: float = 1e-6
    clip: bool = False
    quick_gelu: bool = False
    projection: Annotated[int, Field(ge=0, le=65536)] = 0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ModelError(f"unusable layout of a ViT: width {self.width} is not a multiple of heads {self.heads}")

    def build(self, image_size: int) -> "VisionTransformer":
        """Makes timm's ViT of this layout, with random weights and no projection."""
        from timm.layers.activations import QuickGELU
        from timm.models.vision_transformer import VisionTransformer

        return VisionTransformer(
            img_size=image_size,
            patch_size=self.patch_size,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
            # The half is added because timm rounds the product down.
            mlp_ratio=(self.mlp_width + 0.5) / self.width,
            pre_norm=self.clip,
            norm_layer=partial(nn.LayerNorm, eps=self.norm_eps),
            act_layer=QuickGELU if self.quick_gelu else nn.GELU,
            num_classes=0,
            global_pool="token",
        )


@dataclass(frozen=True)
class PretrainedVit:
    """A ViT from which a network starts, with weights under timm's key names."""

    layout: VitLayout
    image_size: int
    weights: dict[str, torch.Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def vit_layout(architecture: str, image_size: int, sizes: Mapping[str, Any] | None = None) -> VitLayout:
    """Finds the layout of timm's ViT of a name without a tag; sizes: those that differ. Raises ModelError."""
    # A recipe asks for its layout several times, and each time a whole ViT would be built.
    return _layout(architecture, image_size, json.dumps(sizes or {}, sort_keys=True))


@cache
def _layout(architecture: str, image_size: int, sizes: str) -> VitLayout:
    import timm
    from timm.layers.mlp import Mlp
    from timm.models.vision_transformer import VisionTransformer

    if not _ARCHITECTURE.fullmatch(architecture) or not timm.is_model(architecture):
        raise ModelError(f"timm has no architecture {architecture!r}; name one such as vit_small_patch8_224")
    try:
        with torch.device("meta"):
            vit: Any = timm.create_model(
                architecture,
                pretrained=False,
                num_classes=0,
                img_size=image_size,
                global_pool="token",
                **json.loads(sizes),
            )
    except (TypeError, ValueError, AssertionError) as error:
        raise ModelError(f"{architecture} cannot be built for {image_size} pixels: {error}") from error
    plain = type(vit) is VisionTransformer and vit.cls_token is not None and vit.pos_embed is not None
    if plain:
        first: Any = vit.blocks[0]
        plain = vit.num_prefix_tokens == 1 and type(first.mlp) is Mlp and isinstance(first.attn.q_norm, nn.Identity)
    if not plain:
        kind = "with a class token and a position embedding, without registers, gated MLPs and normalised queries"
        raise ModelError(f"{architecture} is not a plain ViT: {kind}")
    norm: Any = vit.norm
    return VitLayout(
        patch_size=vit.patch_embed.patch_size[0],
        width=vit.embed_dim,
        depth=len(vit.blocks),
        heads=first.attn.num_heads,
        mlp_width=first.mlp.fc1.out_features,
        norm_eps=norm.eps,
        clip=not isinstance(vit.norm_pre, nn.Identity),
        quick_gelu=type(first.mlp.act).__name__ == "QuickGELU",
    )


def layout_of(weights: Mapping[str, torch.Tensor]) -> VitLayout:
    """Finds the layout of a plain ViT, with heads 64 wide, from weights under timm's names. Raises ModelError."""
    try:
        hidden, width = weights["blocks.0.mlp.fc1.weight"].shape
        patch = weights["patch_embed.proj.weight"].shape[-1]
    except (KeyError, ValueError) as error:
        raise ModelError(f"not a plain ViT: {error}") from error
    depth = sum(name.startswith("blocks.") and name.endswith(".norm1.weight") for name in weights)
    return VitLayout(patch, width, depth, max(1, width // _HEAD), hidden)


def load_vit(vit: "VisionTransformer", weights: dict[str, torch.Tensor]) -> None:
    """Loads weights under timm's names, with positions resampled to the grid. Raises ModelError."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    state = {name: value.float() for name, value in weights.items() if not name.startswith(("head.", "head_dist."))}
    position = state.get("pos_embed")
    if position is not None and position.ndim == 3:
        state["pos_embed"] = resample_abs_pos_embed(position, list(vit.patch_embed.grid_size))
    try:
        vit.load_state_dict(state)
    except RuntimeError as error:
        first = shorten(str(error).splitlines()[1], 120)
        problem = f"the backbone's weights do not fit the named ViT ({first})"
        raise ModelError(f"{problem}; use the preset or recipe of its size") from error


def mean_attention(attn: Any, x: torch.Tensor, count: int) -> torch.Tensor:
    """Computes the mean attention of the first ``count`` tokens in timm's block: (b, n, d) -> (b, heads, n)."""
    (query, key, _), (for_query, for_key, _) = attn.qkv.weight.chunk(3), attn.qkv.bias.chunk(3)
    q, k = F.linear(x[:, :count], query, for_query), F.linear(x, key, for_key)
    q, k = (part.reshape(*part.shape[:2], attn.num_heads, -1).transpose(1, 2) for part in (q, k))
    return attention_weights(q, k).mean(dim=2)


# The form in which timm and open_clip name a repository: hf-hub:OWNER/NAME.
HUB = "hf-hub:"
# The order in which open_clip looks for them, so that the file that is hashed is the file that is loaded.
CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
# Seconds in which a hub has to answer. The library itself tries again and again for a minute.
_ANSWER = 5.0


def fetch(repository: str, names: Sequence[str], *, download: bool = True) -> Path:
    """Finds the first of these files of a repository on this disk, or else downloads it. Raises ModelError."""
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    cached = (try_to_load_from_cache(repository, name) for name in names)
    if path := next((path for path in cached if isinstance(path, str)), None):
        return Path(path)
    if not download:
        raise ModelError(f"the files of {repository} are not on this disk; name them with --embedder to download them")
    try:
        present = {file.rfilename for file in HfApi().model_info(repository, timeout=_ANSWER).siblings or ()}
        if chosen := next((name for name in names if name in present), None):
            return Path(hf_hub_download(repository, chosen))
    except RepositoryNotFoundError as error:
        raise ModelError(f"the hub has no public repository {repository}; check OWNER/NAME") from error
    except OfflineModeIsEnabled as error:
        raise ModelError(f"{repository} is not on this disk, and HF_HUB_OFFLINE forbids to download it") from error
    # The errors of the library's HTTP client, which has changed.
    except Exception as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        problem = f"{repository} is not on this disk, and the hub cannot be reached ({reason})"
        raise ModelError(f"{problem}; connect to the network, or name a file") from error
    raise ModelError(f"{repository} has none of {', '.join(names)}; name a file instead")


class LearnableTokenizer(nn.Module):
    """Four convolutions of stride 2 without bias. They see far beyond one patch, because strokes are sparse.

    No ReLU follows the last convolution: it starts at zero in a new network, and would get no gradient behind a ReLU.
    """

    def __init__(self, config: ZseConfig) -> None:
        super().__init__()
        widths, layers = pairwise((3, *config.tokenizer_widths, config.vit_width)), list[nn.Module]()
        for (inputs, outputs), kernel in zip(widths, (7, 3, 3, 3), strict=True):
            convolution = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False)
            layers += [nn.ReLU(), convolution] if layers else [convolution]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(b, 3, H, W) -> (b, d, H/16, W/16)."""
        out: torch.Tensor = self.layers(images)
        return out


class Tokenizer(nn.Module):
    """X = Tokenizer(S) + S': the learnable tokenizer's output plus the patch projection's."""

    def __init__(self, config: ZseConfig) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, config.vit_width, config.patch_size, stride=config.patch_size)
        self.learnable = LearnableTokenizer(config) if config.tokenizer == "learnable" else None
        self.average = config.released_tokenizer_average

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(b, 3, H, W) normalised pixels -> (b, grid*grid, d), cells counted row by row."""
        tokens: torch.Tensor = self.patch(images)
        if self.learnable is not None:
            tokens = tokens + self.learnable(images)
        if self.average:
            tokens = tokens / 2
        return tokens.flatten(2).transpose(1, 2)


@dataclass
class EncoderTrace:
    """A record of one forward pass, which ``Encoder`` fills.

    attention, positions: of each block (b, heads, n), [Ret]'s to patches, and (b, n), their cells. kept: (b, n) of
    each selection. patches: two-sided encoders' tokens of a sketch's patches, (2, b, n, e). everything, local: tokens
    of all patches of their photos, and (b, n, d), their local [Ret]. attends: whether two-sided encoders fill the rest.
    """

    attention: list[torch.Tensor] = field(default_factory=list)
    positions: list[torch.Tensor] = field(default_factory=list)
    kept: list[torch.Tensor] = field(default_factory=list)
    patches: torch.Tensor | None = None
    everything: Tokens | None = None
    local: torch.Tensor | None = None
    attends: bool = True

    def add(self, attention: torch.Tensor) -> None:
        """Records a block's attention (b, heads, n), to all patches."""
        self.attention.append(attention)
        self.positions.append(torch.arange(attention.shape[2], device=attention.device).expand(len(attention), -1))


class Encoder(nn.Module):
    """Tokenizer, [Ret], position embedding and pre-norm blocks; both modalities share its weights."""

    def __init__(self, config: ZseConfig) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.config, width = config, config.vit_width
        self.tokenizer = Tokenizer(config)
        self.ret = nn.Parameter(torch.zeros(1, 1, width)) if config.ret == "token" else None
        self.position = nn.Parameter(torch.zeros(1, 1 + config.grid**2, width))
        self.dropout = nn.Dropout(config.dropout)
        norm: Any = partial(nn.LayerNorm, eps=config.norm_eps)
        options = {"mlp_ratio": config.mlp_ratio, "qkv_bias": True, "proj_drop": config.dropout, "norm_layer": norm}
        # The ViT of a photo side has scales after attention and MLP.
        options["init_values"] = 1.0 if config.photo_side else None
        self.blocks = nn.ModuleList(Block(width, config.heads, **options) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.project = nn.Linear(width, config.width) if config.encoder_width else nn.Identity()
        for parameter in (self.ret, self.position):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        """(b, 3, H, W) -> tokens (b, 1 + kept, d) after the final norm; ``trace`` records the pass."""
        return self.projected(*self.features(images, modality, trace))

    def projected(self, x: torch.Tensor, positions: torch.Tensor) -> Tokens:
        """Makes tokens of what ``features`` returns."""
        x = self.project(x)
        return Tokens(with_mean(x) if self.ret is None else x, positions)

    def features(
        self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, 3, H, W) -> tokens before the projection (b, n, vit_width), and positions of patches (b, kept)."""
        patches = self.tokenizer(images)
        # The number of tokens before those of the patches.
        lead = 0 if self.ret is None else 1
        x = patches if self.ret is None else torch.cat([self.ret.expand(len(images), -1, -1), patches], dim=1)
        x = self.dropout(x + self.position[:, 1 - lead :])
        positions = torch.arange(patches.shape[1], device=x.device).expand(len(images), -1)
        rate = self.config.keep_rate(modality)
        block: Any
        for index, block in enumerate(self.blocks):
            y = block.norm1(x)
            x = x + block.ls1(block.attn(y))
            selects = index in self.config.select_after
            if trace is not None:
                trace.attention.append(mean_attention(block.attn, y, lead or x.shape[1])[:, :, lead:])
                trace.positions.append(positions)
            if rate < 1 and selects:
                importance = mean_attention(block.attn, y, 1)[:, :, 1:].mean(dim=1)
                chosen = select_tokens(importance, kept_count(importance.shape[1], rate))
                x = torch.cat([x[:, :1], x[:, 1:].take_along_dim(chosen[..., None], dim=1)], dim=1)
                positions = positions.gather(1, chosen)
            if trace is not None and selects:
                trace.kept.append(positions)
            x = x + block.ls2(block.mlp(block.norm2(x)))
        return self.norm(x), positions


class ConvolutionalEncoder(nn.Module):
    """A ResNet-50 instead of the ViT (w/o SA, table 3): its map at stride 16 gives the tokens, their mean [Ret]."""

    def __init__(self, config: ZseConfig) -> None:
        import timm

        super().__init__()
        resnet: Any = timm.create_model("resnet50", features_only=True, out_indices=(3,))
        self.map = resnet
        self.project = nn.Conv2d(resnet.feature_info.channels()[0], config.width, 1)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for layer in self.map.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        return self

    def forward(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        """(b, 3, H, W) -> tokens (b, 1 + grid*grid, d); the trace gets a uniform attention."""
        cells = self.norm(self.project(self.map(images)[0]).flatten(2).transpose(1, 2))
        positions = torch.arange(cells.shape[1], device=cells.device).expand(len(images), -1)
        if trace is not None:
            trace.add(cells.new_full((len(cells), 1, cells.shape[1]), 1 / cells.shape[1]))
        return Tokens(with_mean(cells), positions)


def with_mean(patches: torch.Tensor) -> torch.Tensor:
    """Puts the mean of visual tokens in front of them, as [Ret]: (b, n, d) -> (b, 1 + n, d)."""
    return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)


class RetNetwork(nn.Module, ABC):
    """The base of all networks. kind: the name in checkpoints. Calibration, prior and words are an engine's part."""

    kind: ClassVar[str]
    config_kind: ClassVar[type[engine.NetworkConfig]]
    config: engine.NetworkConfig

    def __init__(self, config: engine.NetworkConfig, calibration: engine.Calibration = engine.UNCALIBRATED) -> None:
        super().__init__()
        self.config, self.calibration = config, calibration
        self.prior: engine.Prior | None = None
        self.vocabulary: engine.Vocabulary | None = None
        self.projection: engine.Projection | None = None
        self.parting: engine.Parting | None = None

    def encode(
        self, images: torch.Tensor | NDArray[Any], modality: engine.Modality, trace: EncoderTrace | None = None
    ) -> Tokens:
        """(b, 3, H, W) normalised pixels -> tokens, differentiable for tensors; ``trace`` records [Ret]'s attention."""
        return self._encode(as_tensor(images, next(self.parameters()).device).float(), modality, trace)

    @abstractmethod
    def _encode(self, images: torch.Tensor, modality: engine.Modality, trace: EncoderTrace | None) -> Tokens:
        """Encodes float32 images on this network's device."""

    def with_calibration(self, calibration: engine.Calibration) -> Self:
        """Returns a copy, in evaluation mode, with another calibration."""
        return self._replace(calibration=calibration)

    def with_config(self, **fields: Any) -> Self:
        """Returns a copy with other fields of its configuration that its tensors fit, such as keep rates."""
        changed = type(self)(replace(self.config, **fields), self.calibration)
        changed.load_state_dict(self.state_dict())
        known = {name: getattr(self, name) for name in ("prior", "vocabulary", "projection", "parting")}
        return changed._replace(**known)

    def prior_replaced(self, prior: engine.Prior | None) -> Self:
        """Returns a copy with another prior; None for no prior."""
        count = 0 if prior is None else len(prior.prototypes)
        return self._replace(prior=prior, config=replace(self.config, prototypes=count))

    def vocabulary_replaced(self, vocabulary: engine.Vocabulary | None, words: tuple[Names, ...] = ()) -> Self:
        """Returns a copy with another vocabulary, whose words have these names; None for no vocabulary."""
        drawn, placed = ((), 0) if vocabulary is None else (tuple(vocabulary.drawn.tolist()), vocabulary.placed)
        config = replace(self.config, words=words, drawn=drawn, placed=placed)
        return self._replace(vocabulary=vocabulary, config=config)

    def projection_replaced(self, projection: engine.Projection | None) -> Self:
        """Returns a copy with another projection of regions. Raises ModelError for a network without regions."""
        width = 0 if projection is None else len(projection.axes)
        if not isinstance(self.config, engine.TwoSidedConfig):
            raise ModelError(f"{self.config.name} has no regions; only two-sided networks have")
        return self._replace(projection=projection, config=replace(self.config, region_width=width))

    def parting_replaced(self, parting: engine.Parting | None) -> Self:
        """Returns a copy with another parting, which fits this sketch side alone."""
        return self._replace(parting=parting)

    def _replace(self, **attributes: Any) -> Self:
        other = copy.deepcopy(self)
        vars(other).update(attributes)
        return other.requires_grad_(False).eval()

    @property
    def precision(self) -> torch.dtype:
        """The precision of the computations for each pair."""
        return torch.float32

    def set_precision(self, dtype: torch.dtype) -> Self:
        """Sets the precision of the computations for each pair; returns the network. [Ret] stays in float32."""
        return self
