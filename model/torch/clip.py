"""CLIP by open_clip: found and opened, its image encoder as a ViT of timm, and vectors of pictures and of texts."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from sketch_search.model.engine import Floats, unit
from sketch_search.model.errors import ModelError
from sketch_search.model.terminal import expand_home, resolve
from sketch_search.model.torch.vit import CLIP_FILES, HUB, PretrainedVit, fetch, layout_of

FORMS = "MODEL/PRETRAINED as open_clip names them, hf-hub:OWNER/NAME, MODEL@FILE, or a folder that open_clip saved"
DEFAULT_CLIP = "ViT-B-32/laion2b_s34b_b79k"
CONFIG_FILE = "open_clip_config.json"
# Names in CLIP's image encoder, and the same in timm's ViT.
_RENAMED = (
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^conv1\.", "patch_embed.proj."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^proj$", "projection.weight"),
    (r"^transformer\.resblocks\.(\d+)\.ln_([12])\.", r"blocks.\1.norm\2."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"blocks.\1.mlp.fc1."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"blocks.\1.mlp.fc2."),
)
_NORM_EPS = 1e-5
# The number of sentences, and of photos, whose vectors are computed at once.
_AT_ONCE, _PHOTOS = 64, 16
# The limit of CLIP's training, which a larger logit scale would have made unstable.
_LARGEST_SCALE = 100.0


@dataclass(frozen=True)
class ClipFiles:
    """A CLIP on this disk. source: see FORMS; model: an architecture or "local-dir:FOLDER"; files: all of them."""

    source: str
    name: str
    model: str
    files: tuple[Path, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, device: torch.device | str) -> tuple[Any, Callable[[Image.Image], torch.Tensor]]:
        """Reads the model of open_clip, float32, and what prepares an RGB picture, (3, H, W). Raises ModelError."""
        import open_clip

        weights = self.files[0]
        # open_clip reads files with these endings as safetensors or with ``weights_only``. Other files could run code.
        if weights.suffix not in {".safetensors", ".bin", ".pt", ".pth"}:
            raise ModelError(f"{weights} is not a weights file; name a .safetensors, .bin, .pt or .pth file")
        pretrained = None if self.model.startswith("local-dir:") else str(weights)
        try:
            if pretrained is None:
                named = json.loads(self.files[1].read_bytes())["model_cfg"]
                abroad = ":" in str(named["vision_cfg"].get("timm_model_name"))
                if abroad or "hf_model_name" in named.get("text_cfg", {}):
                    raise ValueError("its configuration names an encoder that would be downloaded")
            network, transform = open_clip.create_model_from_pretrained(
                self.model, pretrained, device=device, weights_only=True, **self.options
            )
        # If weights do not fit, open_clip raises whatever error its code happens to run into.
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ModelError(f"{weights} cannot be loaded as CLIP ({reason}); name other weights") from error
        return network.eval(), transform


def find_clip(source: str, *, download: bool = True) -> ClipFiles:
    """Finds the files of a CLIP, see FORMS; download: if they are not on this disk. Raises ModelError."""
    import open_clip

    path, name = expand_home(source), ""
    if source.startswith(HUB):
        repository, name = source.removeprefix(HUB), source
        fetch(repository, CLIP_FILES, download=download)
        path = fetch(repository, (CONFIG_FILE,), download=download).parent
    if path.is_dir():
        path = resolve(path)
        weights = next((path / name for name in CLIP_FILES if (path / name).is_file()), None)
        if weights is None or not (path / CONFIG_FILE).is_file():
            raise ModelError(f"{path} is not a saved open_clip model; it needs {CONFIG_FILE} and {CLIP_FILES[0]}")
        description = f"CLIP {name}" if name else f"CLIP from {path.name}"
        return ClipFiles(name or str(path), description, f"local-dir:{path}", (weights, path / CONFIG_FILE))
    model, at, file = source.partition("@")
    if at:
        if model not in open_clip.list_models():
            raise ModelError(f"open_clip has no model {model!r}; use a name such as ViT-B-32")
        path = expand_home(file)
        if not path.is_file():
            raise ModelError(f"there are no CLIP weights at {path}; name an existing file")
        path = resolve(path)
        return ClipFiles(f"{model}@{path}", f"CLIP {model} ({path.name})", model, (path,))
    if path.is_file():
        raise ModelError(f"{path} does not identify its network; name it with MODEL@{path}, as ViT-B-32@{path}")
    model, _, tag = source.rpartition("/")
    known: Mapping[str, Any] = open_clip.get_pretrained_cfg(model, tag) if model else {}
    if not known:
        remedy = f"name {FORMS}, such as {DEFAULT_CLIP}"
        raise ModelError(f"{source} is neither a file nor an open_clip model with weights; {remedy}")
    weights = _find_published(source, known, download)
    options = {f"image_{name}": known.get(name) for name in ("mean", "std", "interpolation", "resize_mode")}
    options["force_quick_gelu"] = bool(known.get("quick_gelu", False))
    return ClipFiles(source, f"CLIP {source}", model, (weights,), options)


def _find_published(source: str, known: Mapping[str, Any], download: bool) -> Path:
    import open_clip

    repository, name = str(known.get("hf_hub", "")).rpartition("/")[::2]
    if repository:
        return fetch(repository, (name,) if name else CLIP_FILES, download=download)
    if not download:
        raise ModelError(f"the weights of {source} are not on this disk; name them with --embedder to download them")
    try:
        return Path(open_clip.download_pretrained(dict(known)))
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"the weights of {source} are not on this disk and could not be downloaded; connect to the network, or "
            "name a local file with MODEL@FILE"
        ) from error


@dataclass(frozen=True)
class Clip:
    """A CLIP: its image encoder, and what gives sentences their vectors, (n, d) float32, L2-normalised."""

    encoder: PretrainedVit
    text: Callable[[Sequence[str]], torch.Tensor]


def read_clip(source: str) -> Clip:
    """Reads a CLIP; see FORMS. Raises ModelError if it cannot be found, or has no text encoder or no plain ViT."""
    import open_clip

    clip = find_clip(source)
    try:
        model, _ = clip.open(torch.device("cpu"))
        tokens = open_clip.get_tokenizer(clip.model)
    except ModelError as error:
        if any(part in str(error.__cause__) for part in ("text_cfg", "token_embedding", "text_projection")):
            raise ModelError(
                f"{source} has no text encoder, which CLIP-AT needs for the names of classes; name a whole CLIP, or a "
                "recipe for a ViT of timm, such as clip-at/category"
            ) from error
        raise

    # Inference mode is not used, because a training cannot use its tensors.
    @torch.no_grad()
    def text(sentences: Sequence[str]) -> torch.Tensor:
        starts = range(0, len(sentences), _AT_ONCE)
        parts = [model.encode_text(tokens(list(sentences[start : start + _AT_ONCE]))) for start in starts]
        return F.normalize(torch.cat(parts).float(), dim=1)

    return Clip(_encoder(model.visual, source), text)


def clip_encoder(
    state: Mapping[str, torch.Tensor],
    *,
    heads: int | None = None,
    quick_gelu: bool = True,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> PretrainedVit:
    """Makes an image encoder from weights under CLIP's own names, heads 64 wide unless given. Raises ModelError."""
    weights = {rename(key, _RENAMED): value.detach().float() for key, value in state.items()}
    try:
        weights["cls_token"] = weights["cls_token"].reshape(1, 1, -1)
        weights["pos_embed"] = weights["pos_embed"][None]
        weights["projection.weight"] = weights["projection.weight"].T.contiguous()
    except KeyError as error:
        raise ModelError(f"these are not the weights of a ViT of CLIP: {error}") from error
    plain, projection = layout_of(weights), len(weights["projection.weight"])
    layout = replace(plain, heads=heads or plain.heads, norm_eps=_NORM_EPS)
    layout = replace(layout, clip=True, quick_gelu=quick_gelu, projection=projection)
    size = isqrt(weights["pos_embed"].shape[1] - 1) * layout.patch_size
    return PretrainedVit(layout, size, weights, mean, std)


def _encoder(visual: Any, source: str) -> PretrainedVit:
    from open_clip.transformer import QuickGELU, VisionTransformer

    plain = (
        type(visual) is VisionTransformer
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.final_ln_after_pool
        and visual.proj is not None
        and visual.patch_size[0] == visual.patch_size[1]
        and visual.grid_size[0] == visual.grid_size[1]
    )
    if not plain:
        raise ModelError(f"{source} is not a plain ViT with a class token; name one such as ViT-B-32")
    first = visual.transformer.resblocks[0]
    settings = visual.preprocess_cfg
    return clip_encoder(
        visual.state_dict(),
        heads=first.attn.num_heads,
        quick_gelu=isinstance(first.mlp.gelu, QuickGELU),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
    )


def rename(key: str, names: Sequence[tuple[str, str]]) -> str:
    """Applies all replacements of patterns to a key. A key that fits none of them stays as it is."""
    for pattern, replacement in names:
        key = re.sub(pattern, replacement, key)
    return key


class ClipEmbedder:
    """An open_clip image encoder, float32, vectors of length 1. source: an architecture, or "local-dir:FOLDER"."""

    def __init__(
        self, model: Any, transform: Callable[[Image.Image], torch.Tensor], device: torch.device | str, source: str
    ) -> None:
        self.model, self.transform, self.device, self.source = model, transform, device, source

    def prepare(self, image: Image.Image) -> Floats:
        """Prepares an RGB picture as this model was trained: (3, H, W). Several threads may call it."""
        return np.asarray(self.transform(image).numpy())

    @torch.inference_mode()
    def embed(self, inputs: Sequence[Floats]) -> Floats:
        """Computes image features of b prepared photos, (b, e) float32, L2-normalised."""
        parts = torch.split(torch.from_numpy(np.stack(inputs)), _PHOTOS)
        return unit(torch.cat([self.model.encode_image(part.to(self.device)).float().cpu() for part in parts]).numpy())


class TextTower:
    """The text tower of an open_clip model, for one thread at a time. Raises ModelError if it has none."""

    def __init__(self, embedder: ClipEmbedder, name: str) -> None:
        self._embedder = embedder
        self._tokenizer = _tokenizer(embedder.model, embedder.source, name)
        self._scale = min(float(embedder.model.logit_scale.detach().exp().flatten()[0]), _LARGEST_SCALE)

    @torch.inference_mode()
    def text(self, text: str) -> Floats:
        """Encodes a text, cut off after the model's context: (e,) float32, of length 1 times the logit scale."""
        vector = self._embedder.model.encode_text(self._tokenizer([text]).to(self._embedder.device))
        return np.asarray(unit(vector.float().cpu().numpy())[0] * np.float32(self._scale))


def _tokenizer(model: Any, source: str, name: str) -> Callable[[list[str]], torch.Tensor]:
    import open_clip

    embeddings = [part for path, part in model.named_modules() if path.endswith("token_embedding")]
    if not embeddings or not hasattr(model, "encode_text"):
        raise ModelError(f"{name} has no text tower; use a CLIP model that has one")
    folder = source.removeprefix("local-dir:")
    if folder != source:
        config: Any = json.loads((Path(folder) / CONFIG_FILE).read_text(encoding="utf-8"))["model_cfg"]
    else:
        config = open_clip.get_model_config(source)
    if "siglip" in source.lower() or config.get("text_cfg", {}).get("hf_tokenizer_name"):
        missing = "a tokenizer that does not come with open_clip; use a model such as ViT-B-32"
        raise ModelError(f"the text tower of {name} needs {missing}")
    tokenizer: Any = open_clip.get_tokenizer(source)
    if tokenizer.vocab_size > embeddings[0].num_embeddings:
        raise ModelError(
            f"the text tower of {name} has {embeddings[0].num_embeddings:,} tokens, but open_clip's tokenizer has "
            f"{tokenizer.vocab_size:,}; use another CLIP model"
        )
    tokenize: Callable[[list[str]], torch.Tensor] = tokenizer
    return tokenize
