"""Embedders: what the vectors that photos are clustered by are made of, [Ret] or CLIP, and both towers of CLIP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from indexer.errors import EmbedderUnavailable
from indexer.store import EmbedderEntry, hash_file, normalised
from model.network import ClipSource, clip_source
from model.terminal import expanded, resolved

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ChosenEmbedder:
    """An embedder that has been found.

    Attributes:
        entry: what the manifest says about it.
        load: reads its weights, and gives None where clusters are made from [Ret] itself, which is computed anyway. It
            is called only where there are new photos, since without any the embedder is not needed.
            EmbedderUnavailable where the weights do not fit.
    """

    entry: EmbedderEntry
    load: Callable[[], ClipEmbedder | None]


DEFAULT_CLIP = "ViT-B-32/laion2b_s34b_b79k"
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# The forms of ``--embedder``, for sentences about one that is in none of them.
FORMS = "ret, clip, clip:MODEL/PRETRAINED, clip:MODEL@FILE or clip:FOLDER"
_CHUNK = 16


class ClipEmbedder:
    """An open_clip image encoder, in float32. It gives every photo a vector of unit length.

    Attributes:
        model: the open_clip model. transform: its PIL -> (3, H, W) preprocessing. device: where it runs.
        source: what open_clip calls it: the name of an architecture, or "local-dir:FOLDER".
    """

    def __init__(
        self, model: Any, transform: Callable[[Image.Image], torch.Tensor], device: torch.device, source: str
    ) -> None:
        self.model = model.eval()
        self.transform = transform
        self.device = device
        self.source = source

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """Prepares an RGB picture as this model was trained: (3, H, W). Several threads may call it."""
        return self.transform(image)

    @torch.inference_mode()
    def embed(self, inputs: Sequence[torch.Tensor]) -> Floats:
        """Computes the model's image features of b prepared photos, (b, e) float32, L2-normalised.

        They are computed in chunks of one size, the last one padded, so that a photo's vector does not depend on the
        photos that are computed with it.
        """
        images = torch.stack(list(inputs))
        out = []
        for start in range(0, len(images), _CHUNK):
            block = images[start : start + _CHUNK]
            padded = torch.zeros(_CHUNK, *block.shape[1:])
            padded[: len(block)] = block
            out.append(self.model.encode_image(padded.to(self.device))[: len(block)].float().cpu())
        return normalised(torch.cat(out).numpy())


def cached_file(repository: str, names: Sequence[str]) -> Path | None:
    """Finds the first of these files of a model repository that was downloaded before; None where none was."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:  # Then nothing can have been downloaded for this program.
        return None

    for name in names:
        if isinstance(found := try_to_load_from_cache(repository, name), str):
            return Path(found)
    return None


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise EmbedderUnavailable(
            "open_clip is not installed; run `pip install 'sketch-search[clip]'`, or use --embedder ret."
        ) from error
    return open_clip


def clip_by_tag(named: ClipSource, device: torch.device, download: bool) -> ChosenEmbedder:
    """Finds a model by the tag of its published weights, which are downloaded where they are not on this disk.

    Raises:
        EmbedderUnavailable: open_clip does not know it; or its weights are not on this disk, and ``download`` is False
            or the download failed.
    """
    open_clip = _open_clip()
    source = f"{named.model}/{named.tag}" if named.model else named.tag
    settings = named.published()
    if not settings:
        raise EmbedderUnavailable(
            f"clip:{source} is neither a file nor an open_clip model with weights; use {FORMS}, "
            f"for instance clip:{DEFAULT_CLIP}."
        )
    repository, name = str(settings.get("hf_hub", "")).rpartition("/")[::2]
    path = cached_file(repository, (name,) if name else WEIGHT_FILES) if repository else None
    if path is None:
        if not download:
            raise EmbedderUnavailable(
                f"this index was made by clip:{source}, whose weights are not on this disk any more; name it with "
                "--embedder to download them, or use --embedder ret."
            )
        try:
            path = Path(open_clip.download_pretrained(settings))
        except (OSError, RuntimeError, ValueError) as error:
            raise EmbedderUnavailable(
                f"the weights of clip:{source} are not on this disk and could not be downloaded; "
                "connect to the network, name a local file with clip:MODEL@FILE, or use --embedder ret."
            ) from error
    return _chosen(
        f"clip:{source}",
        f"CLIP {source}",
        [path],
        lambda: _load(
            named.model,
            path,
            device,
            force_quick_gelu=bool(settings.get("quick_gelu", False)),
            image_mean=settings.get("mean"),
            image_std=settings.get("std"),
            image_interpolation=settings.get("interpolation"),
            image_resize_mode=settings.get("resize_mode"),
        ),
    )


def clip_from_file(named: ClipSource, path: Path, device: torch.device) -> ChosenEmbedder:
    """Finds a model by the name of its architecture, and its weights in the file at ``path``.

    Raises:
        EmbedderUnavailable: open_clip does not know the model, or there is no such file.
    """
    _open_clip()
    model = named.model
    if not named.is_known():
        raise EmbedderUnavailable(f"open_clip knows no model {model!r}; use a name such as ViT-B-32.")
    if not path.is_file():
        raise EmbedderUnavailable(f"there are no CLIP weights at {path}; name an existing file.")
    return _chosen(f"clip:{model}@{path}", f"CLIP {model} ({path.name})", [path], lambda: _load(model, path, device))


def clip_from_folder(folder: Path, device: torch.device) -> ChosenEmbedder:
    """Finds a model that open_clip saved in a folder, with its configuration.

    Raises:
        EmbedderUnavailable: the folder holds no such model.
    """
    config = folder / "open_clip_config.json"
    # The order in which open_clip looks for them, so that the file that is hashed is the file that is loaded.
    names = (WEIGHT_FILES[0], "open_clip_pytorch_model.safetensors", WEIGHT_FILES[1])
    weights = next((folder / name for name in names if (folder / name).is_file()), None)
    if not config.is_file() or weights is None:
        raise EmbedderUnavailable(
            f"{folder} is no saved open_clip model; it needs open_clip_config.json and {' or '.join(WEIGHT_FILES)}."
        )
    return _chosen(
        f"clip:{folder}",
        f"CLIP from {folder.name}",
        [weights, config],
        lambda: _load(f"local-dir:{folder}", weights, device),
    )


def _chosen(spec: str, name: str, files: Sequence[Path], load: Callable[[], ClipEmbedder]) -> ChosenEmbedder:
    digest = hashlib.sha256("".join(hash_file(path) for path in files).encode()).hexdigest()
    entry = EmbedderEntry(
        kind="clip", name=name, description=f"image vectors of {name}, by open_clip", spec=spec, sha256=digest
    )
    return ChosenEmbedder(entry, load)


def _load(model: str, weights: Path, device: torch.device, **options: object) -> ClipEmbedder:
    # open_clip reads these as safetensors or with ``weights_only``. Files of other names could run code.
    if weights.suffix not in {".safetensors", ".bin", ".pt", ".pth"}:
        raise EmbedderUnavailable(f"{weights} is no weights file; name a .safetensors, .bin, .pt or .pth file.")
    pretrained = None if model.startswith("local-dir:") else str(weights)
    try:
        network, transform = _open_clip().create_model_from_pretrained(
            model, pretrained=pretrained, device=device, weights_only=True, **options
        )
    # For weights that do not fit, open_clip raises whatever error its code happens to run into.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EmbedderUnavailable(
            f"{weights} cannot be loaded as CLIP ({reason}); name other weights, or --embedder ret."
        ) from error
    return ClipEmbedder(network, transform, device, model)


@dataclass(frozen=True)
class WantedEmbedder:
    """An embedder that a build wants.

    Attributes:
        spec: as ``--embedder`` has it. download: whether its weights may be downloaded: only where the user named it.
    """

    spec: str
    download: bool

    def find(self, device: torch.device) -> ChosenEmbedder:
        """Find it. Raises what ``choose_embedder`` does."""
        return choose_embedder(self.spec, device, download=self.download)


def choose_embedder(spec: str, device: torch.device, *, download: bool = True) -> ChosenEmbedder:
    """Find an embedder by its ``--embedder`` value.

    "auto" is [Ret]: that CLIP's weights are on this disk may be the doing of any other program.

    Args:
        device: where it is to compute. download: whether weights that are not on this disk may be downloaded.

    Raises:
        EmbedderUnavailable: there is no such embedder, or its weights are not on this disk and cannot be downloaded.
    """
    if spec in ("auto", "ret"):
        entry = EmbedderEntry(
            kind="ret", name="[Ret]", description="the checkpoint's own retrieval token, L2-normalised", spec="ret"
        )
        return ChosenEmbedder(entry, lambda: None)
    if spec == "clip":
        spec = f"clip:{DEFAULT_CLIP}"
    kind, _, source = spec.partition(":")
    if kind != "clip" or not source:
        raise EmbedderUnavailable(f"there is no embedder {spec!r}; use {FORMS}, or auto.")
    named = clip_source(source)
    if named.folder is not None:
        return clip_from_folder(resolved(named.folder), device)
    if named.file is not None:
        return clip_from_file(named, resolved(named.file), device)
    if expanded(source).is_file():
        path = resolved(expanded(source))
        raise EmbedderUnavailable(
            f"{path} does not say which network it is for; name it with clip:MODEL@{path}, as in clip:ViT-B-32@{path}."
        )
    return clip_by_tag(named, device, download)


# As CLIP was trained: a larger scale would have made its training unstable.
_LARGEST_SCALE = 100.0
_FOLDER = "local-dir:"


class ClipTowers:
    """The text tower and the image tower of one open_clip model, in float32. Threads must not use it at once.

    Raises EmbedderUnavailable, when it is made, where the model has no text tower that can be used here.
    """

    def __init__(self, embedder: ClipEmbedder, name: str) -> None:
        """``name``: the model as people know it, for sentences."""
        self._embedder = embedder
        self._model = embedder.model
        self._tokenizer = _tokenizer(self._model, embedder.source, name)
        self._scale = min(float(self._model.logit_scale.detach().exp().flatten()[0]), _LARGEST_SCALE)

    @torch.inference_mode()
    def text(self, text: str) -> Floats:
        """Encodes a text: (e,) float32, a vector of unit length times the model's logit scale.

        Its product with a photo's vector is the logit that the model was trained with. What is longer than the model's
        context, most often 77 tokens, is cut off.
        """
        vector = self._model.encode_text(self._tokenizer([text]).to(self._embedder.device))
        return (self._scale * F.normalize(vector.float(), dim=-1))[0].cpu().numpy()

    @torch.inference_mode()
    def image(self, picture: Image.Image) -> Floats:
        """Encodes an RGB picture: (e,) float32 of unit length."""
        image = self._embedder.transform(picture)[None].to(self._embedder.device)
        return F.normalize(self._model.encode_image(image).float(), dim=-1)[0].cpu().numpy()


def open_towers(entry: EmbedderEntry, device: torch.device) -> ClipTowers:
    """Load the model that made the vectors of an index. Nothing is downloaded.

    Args:
        entry: the embedder in the manifest of the index. device: where the towers are to compute.

    Raises:
        EmbedderUnavailable: the index was not clustered by CLIP; the model is not on this disk, or is another one by
            now; or it has no text tower that can be used here.
    """
    chosen = choose_embedder(entry.spec, device, download=False)
    if not chosen.entry.same(entry):
        raise EmbedderUnavailable(
            f"{entry.spec} is another model by now than the one that this index was clustered by; put that one back, "
            "or run `sketch-search index build` with --embedder."
        )
    embedder = chosen.load()
    if embedder is None:
        raise EmbedderUnavailable(f"this index was clustered by {entry.name}, not by CLIP.")
    return ClipTowers(embedder, entry.name)


def _tokenizer(model: Any, source: str, name: str) -> Callable[[list[str]], torch.Tensor]:
    """Returns open_clip's own tokenizer of this model, which needs no download."""
    embeddings = [part for path, part in model.named_modules() if path.endswith("token_embedding")]
    if not embeddings or not hasattr(model, "encode_text"):
        raise EmbedderUnavailable(f"{name} has no text tower; use a CLIP model that has one.")
    if "siglip" in source.lower() or _text_config(source).get("hf_tokenizer_name"):
        raise EmbedderUnavailable(
            f"the text tower of {name} needs a tokenizer that does not come with open_clip; use a model such as "
            "ViT-B-32."
        )
    import open_clip

    tokenizer = open_clip.get_tokenizer(source)
    if tokenizer.vocab_size > embeddings[0].num_embeddings:
        raise EmbedderUnavailable(
            f"the text tower of {name} knows {embeddings[0].num_embeddings:,} tokens, and open_clip's tokenizer has "
            f"{tokenizer.vocab_size:,}; use another CLIP model."
        )
    # Its type is open_clip's, which has none.
    tokenize: Callable[[list[str]], torch.Tensor] = tokenizer
    return tokenize


def _text_config(source: str) -> dict[str, Any]:
    """Reads the part of a model's configuration that describes its text tower."""
    import open_clip

    if source.startswith(_FOLDER):
        saved = json.loads((Path(source.removeprefix(_FOLDER)) / "open_clip_config.json").read_text(encoding="utf-8"))
        config = saved["model_cfg"]
    else:
        config = open_clip.get_model_config(source)
    text: dict[str, Any] = config.get("text_cfg", {})
    return text
