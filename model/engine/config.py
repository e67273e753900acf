"""Defines the configuration and the calibration of a network, stored as JSON in the checkpoint's metadata."""

import dataclasses
import json
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from sketch_search.model.errors import ModelError
from sketch_search.model.limits import MAX_VARIANTS
from sketch_search.model.words import Names, spelling, why_no_name

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Modality = Literal["sketch", "photo"]
# By pairs of tokens, by [Ret], by both; and the things of a drawing by regions, which need no training.
Method = Literal["rn", "ret", "fused", "things"]
METHODS: tuple[Method, ...] = ("rn", "ret", "fused")
# Sizes of a network; the largest are several times those of the largest networks of their kind.
Size = Annotated[int, Field(ge=1, le=65536)]
Positive = Annotated[float, Field(gt=0, le=1000)]
# Results computed from these fit in 32 bits.
_Level = Annotated[float, Field(ge=-1e6, le=1e6)]
_Width = Annotated[float, Field(ge=1e-6, le=1e6)]
Pixels = tuple[_Level, _Level, _Level]
Spread = tuple[_Width, _Width, _Width]
# The most words of a vocabulary, ten times those of the largest one, and the most names of a word.
_MAX_WORDS = 20_000
MAX_NAMES = 16

Record = TypeVar("Record", bound="DataclassInstance")


# To make one takes longer than to read a thousand records.
_adapter = cache(TypeAdapter)


def to_json(record: "DataclassInstance") -> str:
    """Writes the text that a checkpoint stores: a JSON object with a key for each field, sorted by name."""
    return json.dumps(dataclasses.asdict(record), sort_keys=True)


def from_json(record: type[Record], text: str, title: str) -> Record:
    """Reads a record written by ``to_json``, with defaults for missing fields. Raises ModelError with ``title``."""
    try:
        values: dict[str, Any] = json.loads(text)
        kind: Any = record
        if record is ModelConfig:
            kind = TwoSidedConfig if values.get("encoder") == "two-sided" else ZseConfig
        if unknown := sorted(values.keys() - {field.name for field in dataclasses.fields(kind)}):
            remedy = "check their names, or install a newer sketch-search"
            raise ModelError(f"{title} has unknown fields ({', '.join(unknown)}); {remedy}")
        adapter: TypeAdapter[Record] = _adapter(kind)
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{title} cannot be read: {field}: {first['msg']}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{title} cannot be read: {error}") from error


# The total stride of the learnable tokenizer's four convolutions.
TOKENIZER_STRIDE = 16
# With a larger weight, the other score would vanish in float32.
MAX_FUSION = 1e6
# What a search for one drawn thing adds up, and what it knows of the query (``model.search.terms``).
TERMS = ("diffused", "pair", "word", "kinship", "kind", "region", "box", "presence")
FACTS = ("always", "liked", "strange", "worded", "named", "coloured", "placed", "sure", "backed")
# How probably a photo shows a thing that is asked for: what log-odds add up, and what is known of the query.
SIGNS = ("always", "diffused", "pair", "word", "level", "region", "box", "kinship")
ASKED = ("always", "one", "several", "single", "fast", "named", "sure", "known", "liked")
Weights = dict[str, dict[str, Annotated[float, Field(ge=-MAX_FUSION, le=MAX_FUSION)]]]
# Of a checkpoint that none were fitted for.
UNFITTED: Weights = {
    "diffused": {"always": 1.0, "liked*worded": 0.5, "liked": -0.5, "worded": -0.5},
    "pair": {"always": 0.35},
    "word": {"always": 0.25},
    "kinship": {"strange": 8.0},
    "kind": {"always": 16.0},
    "region": {"placed*sure": 8.0},
    "box": {"placed*backed": 64.8, "placed*named": 7.2},
    "presence": {"backed": 12.0},
}


@dataclass(frozen=True)
class Calibration:
    """The choices that belong to the weights.

    methods: trained ones: "rn" by the relation network, "ret" by the distance of [Ret], "fused" by both.
    best_method: by mAP@all on validation classes. fusion: in logit(relation score) - fusion * distance.
    diffusion: cosine in [-1, 1) from which photos share scores; None for none. variants: 1 to MAX_VARIANTS.
    weights: of each of TERMS by FACTS, or by products of these, such as "placed*sure". shown: the same of SIGNS by
        ASKED; none if nobody fitted them.
    """

    methods: tuple[Method, ...] = ("ret",)
    best_method: Method = "ret"
    fusion: float | None = None
    diffusion: float | None = None
    variants: int = MAX_VARIANTS
    weights: Weights = field(default_factory=lambda: UNFITTED)
    shown: Weights = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        if not self.methods or set(self.methods) - set(METHODS) or self.best_method not in self.methods:
            problems.append(f"methods {self.methods} must be some of {METHODS} and hold best_method")
        if "fused" in self.methods and self.fusion is None:
            problems.append('method "fused" needs a fusion weight')
        if self.fusion is not None and not abs(self.fusion) <= MAX_FUSION:
            problems.append(f"fusion must lie in [-{MAX_FUSION:g}, {MAX_FUSION:g}]")
        if self.diffusion is not None and not -1 <= self.diffusion < 1:
            problems.append("diffusion must lie in [-1, 1)")
        if not 1 <= self.variants <= MAX_VARIANTS:
            problems.append(f"variants must be 1 to {MAX_VARIANTS}")
        for weights, terms, facts in ((self.weights, TERMS, FACTS), (self.shown, SIGNS, ASKED)):
            known = {fact for of_term in weights.values() for names in of_term for fact in names.split("*")}
            if unknown := {*weights} - {*terms} | known - {*facts}:
                problems.append(f"weights name {', '.join(sorted(unknown))}; install a newer sketch-search")
        if problems:
            raise ModelError("unusable calibration: " + "; ".join(problems))

    @property
    def relation_trained(self) -> bool:
        """True if the relation network was trained, so that its score is meaningful."""
        return bool(set(self.methods) - {"ret"})


# Of a network whose relation network is untrained: only [Ret] may be used for scores.
UNCALIBRATED = Calibration()


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ABC):
    """All parameters needed to rebuild any network and to prepare its input.

    image_size: side of the square input. prototypes: of the prior; 0 for none. words: each by its names, the shown
    one first. drawn: the word of each thing to guess, -1 for none. placed: the last words, placed by text vectors.
    mean, std: normalisation of pixels in [0, 1].
    """

    name: str
    image_size: Annotated[int, Field(ge=1, le=2048)] = 224
    prototypes: Annotated[int, Field(ge=0, le=65536)] = 0
    words: tuple[Names, ...] = ()
    drawn: tuple[int, ...] = ()
    placed: Annotated[int, Field(ge=0, le=65536)] = 0
    mean: Pixels = (0.5, 0.5, 0.5)
    std: Spread = (0.5, 0.5, 0.5)

    # Some networks have fields of these names.
    released_preprocessing = False
    released_padding = False
    region_width = 0

    if TYPE_CHECKING:
        # These are fields of some configurations, and properties of others.
        @property
        def width(self) -> int:
            """The length of [Ret]."""

    def __post_init__(self) -> None:
        problems = self.problems()
        if problem := problem_of_words(self.words, self.drawn):
            problems.append(problem)
        if self.placed and self.placed >= len(self.words):
            problems.append("placed must be fewer than words")
        if problems:
            raise ModelError("unusable network configuration: " + "; ".join(problems))

    def problems(self) -> list[str]:
        return []

    @property
    @abstractmethod
    def grid(self) -> int:
        """Patches along one side of the input."""

    @property
    def regions(self) -> int:
        """How many regions of a photo are kept: squares of 2 x 2 patches."""
        return (self.grid // 2) ** 2 if self.region_width else 0

    @abstractmethod
    def token_count(self, modality: Modality) -> int:
        """Returns the number of tokens of an encoded image, [Ret] included."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(NetworkConfig):
    """Parameters of networks with cross-attention, by sections of ZSE-SBIR.

    heads, depth, mlp_ratio, norm_eps: of the ViT (3.2). keep_sketch, keep_photo: r_S and r_I in (0, 1] (3.4).
    cross_heads, cross_ffn: of the cross-attention layer (3.3). dropout: in training only.
    """

    width: Size
    heads: Size
    depth: Size = 12
    mlp_ratio: Positive = 4.0
    norm_eps: float = 1e-6
    keep_sketch: float = 1.0
    keep_photo: float = 1.0
    cross_heads: Size = 8
    cross_ffn: Size = 1024
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    # Some networks have fields of these names.
    photo_side = ""
    ret = "token"
    keep_cross = 1.0
    released_value_from_query = False
    released_cross_norm = False

    if TYPE_CHECKING:

        @property
        def patch_size(self) -> int:
            """Side of a patch in pixels."""

    def problems(self) -> list[str]:
        problems = []
        if self.image_size % self.patch_size:
            problems.append(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.width % self.cross_heads:
            problems.append(f"width {self.width} is not a multiple of cross_heads {self.cross_heads}")
        if any(not 0 < rate <= 1 for rate in (self.keep_sketch, self.keep_photo)):
            problems.append("keep rates must lie in (0, 1]")
        return problems

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size

    @property
    def selections(self) -> int:
        """How often tokens are selected, at the same rate each time."""
        return 1

    def patches(self, modality: Modality) -> int:
        """Returns the number of patches along one side."""
        return self.grid

    def keep_rate(self, modality: Modality) -> float:
        return self.keep_sketch if modality == "sketch" else self.keep_photo

    def token_count(self, modality: Modality) -> int:
        left = self.patches(modality) ** 2
        for _ in range(self.selections):
            left = kept_count(left, self.keep_rate(modality))
        return 1 + left


@dataclass(frozen=True, kw_only=True)
class ZseConfig(ModelConfig):
    """The configuration of the network of ZSE-SBIR, with its ablations (table 3).

    encoder: "vit", or "resnet50", whose feature map becomes the tokens, without self-attention (w/o SA).
    ret: what [Ret] is: a "token" of its own (3.2), or the "mean" of the visual tokens, which alone go through the
        network (w/o [Ret]; the baseline ViT-Vis).
    tokenizer: "learnable" adds four convolutions to the patch projection (3.1); "patch" leaves them out.
    tokenizer_widths: channels of the first three convolutions; the last has the encoder's width.
    encoder_width: of the ViT, whose tokens are projected to ``width``; 0 for a ViT of ``width``.
    photo_side: SHA-256 of the photo side whose matrices the ViT has, with norms, biases and scales of its own; "" for
        a ViT of its own.
    select_after: indices of the blocks after whose attention tokens are selected (3.4; layers 4, 7 and 10).
    keep_cross: keep rate r_CA in (0, 1] of the photo tokens that the sketch's [Ret] selects in cross-attention.
    cross_attention: False compares the tokens as they left the encoder.
    relation: "kernel-mlp" is the paper's relation network on the flattened kernel matrix (3.5), with ``kernel_width``
        channels and ``relation_hidden`` units; "pair-mlp" has a metric learned on concatenated pairs instead of the
        cosine (w/o Cos-K); "best-match" weights each token's best match.
    relation_ret: adds a learned multiple of the [Ret] tokens' cosine to the relation logit.
    released_*: how released checkpoints were trained; False for new networks.
    """

    encoder: Literal["vit", "resnet50"] = "vit"
    ret: Literal["token", "mean"] = "token"
    tokenizer: Literal["learnable", "patch"] = "learnable"
    tokenizer_widths: tuple[Size, Size, Size] = (64, 128, 256)
    patch_size: Size = 16
    encoder_width: Annotated[int, Field(ge=0, le=65536)] = 0
    photo_side: str = ""
    select_after: tuple[int, ...] = (3, 6, 9)
    keep_cross: float = 1.0
    cross_attention: bool = True
    relation: Literal["kernel-mlp", "pair-mlp", "best-match"] = "kernel-mlp"
    kernel_width: Size = 512
    relation_hidden: tuple[Size, Size] = (343, 49)
    relation_ret: bool = False
    # The released loader squashes photos and crops sketches by fixed thresholds and margins.
    released_preprocessing: bool = False
    # The released tokenizer averages its two branches; the paper adds them.
    released_tokenizer_average: bool = False
    # Released cross-attention takes the value from the query's own side; eq. 6 takes it from the key's side.
    released_value_from_query: bool = False
    # The released kernel views (n, d) tokens as a (d, 14, 14) map without transposing them.
    released_kernel_view: bool = False
    # Released cross-attention divides by the unbiased standard deviation plus epsilon.
    released_cross_norm: bool = False

    @property
    def vit_width(self) -> int:
        return self.encoder_width or self.width

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.vit_width % self.heads:
            problems.append(f"width {self.vit_width} is not a multiple of heads {self.heads}")
        if self.tokenizer == "learnable" and self.patch_size != TOKENIZER_STRIDE:
            problems.append(f"the learnable tokenizer needs patches of {TOKENIZER_STRIDE} pixels")
        if self.encoder == "resnet50" and (self.photo_side or self.encoder_width):
            problems.append("a ResNet-50 has no photo side and no encoder_width")
        if list(self.select_after) != sorted(set(self.select_after)):
            problems.append(f"select_after {self.select_after} must ascend")
        if any(not 0 <= index < self.depth for index in self.select_after):
            problems.append(f"select_after {self.select_after} names a block beyond depth {self.depth}")
        if self.relation != "best-match" and self.grid % 2:
            problems.append("the kernel's 2x2 downsampling needs an even patch grid")
        if not 0 < self.keep_cross <= 1:
            problems.append("keep rates must lie in (0, 1]")
        if self.keep_cross < 1 and (self.ret == "mean" or not self.cross_attention):
            problems.append("keep_cross needs cross-attention and a [Ret] of its own, which selects the tokens")
        if self.encoder == "resnet50" and self.ret == "token":
            problems.append('a ResNet-50 has no [Ret] of its own: set ret to "mean"')
        if self.ret == "mean" and self.keep_sketch * self.keep_photo < 1:
            problems.append("tokens are selected by the attention of [Ret]: without it, keep rates must be 1")
        if self.released_value_from_query and (self.keep_sketch != self.keep_photo or self.keep_cross < 1):
            problems.append("released_value_from_query needs equal numbers of sketch and photo tokens")
        return problems

    @property
    def selections(self) -> int:
        return len(self.select_after)


@dataclass(frozen=True, kw_only=True)
class TwoSidedConfig(ModelConfig):
    """The configuration of a ViT, frozen for photos and tuned for sketches (``model.torch.two_sided``).

    It selects tokens once, after the last block, and compares best matches and [Ret].

    encoder_width: width of the ViT, whose tokens are projected to ``width``.
    sketch_size: side of the square to which sketches are scaled, in pixels; at most ``image_size``.
    second_width, second_heads: of the ViT beside it that sees photos alone; a width of 0 for none.
    pre_norm, quick_gelu: whether the ViT has a LayerNorm before its blocks, and x sigmoid(1.702 x) instead of GELU, as
        CLIP's.
    photo_side: SHA-256 of the file with the part of the network that photos need.
    region_width: numbers of each region of a photo (``model.engine.Projection``); 0 if there are none.
    """

    encoder: Literal["two-sided"] = "two-sided"
    patch_size: Size = 14
    encoder_width: Size
    sketch_size: Size
    second_width: Annotated[int, Field(ge=0, le=8192)]
    second_heads: Size
    pre_norm: bool = False
    quick_gelu: bool = False
    photo_side: str = "unknown"
    region_width: Annotated[int, Field(ge=0, le=256)] = 0

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.sketch_size % self.patch_size or self.sketch_size > self.image_size:
            problems.append(f"sketch_size {self.sketch_size} is no multiple of patch_size, or larger than image_size")
        if self.encoder_width % self.heads or self.second_width % self.second_heads:
            problems.append("encoder_width or second_width is not a multiple of its heads")
        if self.region_width and (self.grid % 2 or self.region_width % 2):
            problems.append("regions, squares of 2 x 2 patches, need an even patch grid and an even region_width")
        return problems

    def patches(self, modality: Modality) -> int:
        return self.sketch_size // self.patch_size if modality == "sketch" else self.grid


def problem_of_words(words: tuple[Names, ...], drawn: tuple[int, ...]) -> str | None:
    """Returns why these cannot be the words of a vocabulary and its things in sketches, or None if they can."""
    if (most := max(len(words), len(drawn))) > _MAX_WORDS:
        return f"there must be at most {_MAX_WORDS:,} words, not {most:,}"
    shown: set[str] = set()
    for names in words:
        if not 1 <= len(names) <= MAX_NAMES:
            return f"a word must have 1 to {MAX_NAMES} names, not {len(names)}"
        if problem := next(filter(None, map(why_no_name, names)), None):
            return f"the name of a word {problem}"
        shown.add(spelling(names[0]))
    if any(not -1 <= number < len(words) for number in drawn) or (drawn and not words):
        return "drawn must be numbers of words, or -1"
    return None if len(shown) == len(words) else "each word must have a unique name"


def kept_count(tokens: int, rate: float) -> int:
    """Computes ceil(rate * tokens), with the rate as it is printed, not as its binary approximation."""
    return math.ceil(Fraction(str(rate)) * tokens)


_SMALL: dict[str, Any] = {"cross_heads": 6, "relation": "best-match", "relation_ret": True}
_SMALL |= {"keep_sketch": 0.7, "keep_photo": 0.7}
PRESETS: dict[str, ZseConfig] = {
    "zse-b16": ZseConfig(name="zse-b16", width=768, heads=12),
    "zse-s16": ZseConfig(name="zse-s16", width=384, heads=6, cross_ffn=512, **_SMALL),
    # On the ViT of the default network's photo side, whose file it names once it is trained.
    "zse-s14": ZseConfig(
        name="zse-s14",
        image_size=112,
        width=192,
        heads=6,
        tokenizer="patch",
        patch_size=14,
        encoder_width=384,
        photo_side="unknown",
        cross_heads=6,
        cross_ffn=256,
        kernel_width=128,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    "zse-ti16": ZseConfig(name="zse-ti16", width=192, heads=3, tokenizer_widths=(16, 32, 64), cross_ffn=256, **_SMALL),
}
TWO_SIDED = TwoSidedConfig(
    name="two-sided-s14",
    width=192,
    heads=6,
    encoder_width=384,
    sketch_size=168,
    second_width=192,
    second_heads=3,
    keep_sketch=0.1111,
    keep_photo=0.0625,
    cross_heads=6,
    cross_ffn=256,
    dropout=0.0,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


def preset(name: str) -> ZseConfig:
    """Returns the configuration of this name. Raises ModelError."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ModelError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}") from None
