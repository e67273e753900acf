"""Embedders, which make the vectors that photos are clustered by: [Ret] or CLIP. Also holds both towers of CLIP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from model.errors import ModelError
from model.network import DEFAULT_CLIP, find_clip

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ChosenEmbedder:
    """An embedder that has been found.

    Attributes:
        entry: what the manifest says about it.
        load: reads its weights; returns None if clusters are made from [Ret] itself, which is computed anyway. It is
            called only if there are new photos, since otherwise the embedder is not needed. Raises EmbedderUnavailable
            if the weights do not fit.
    """

    entry: EmbedderEntry
    load: Callable[[], ClipEmbedder | None]


# The forms of ``--embedder``, for the sentence about one that is in none of them.
FORMS = "ret, clip, clip:MODEL/PRETRAINED, clip:MODEL@FILE or clip:FOLDER"
_CHUNK = 16


class ClipEmbedder:
    """An open_clip image encoder, in float32. It gives every photo a vector of unit length.

    Attributes:
        model: the open_clip model. transform: its PIL -> (3, H, W) preprocessing. device: where it runs.
        source: its name in open_clip: that of an architecture, or "local-dir:FOLDER".
    """

    def __init__(
        self, model: Any, transform: Callable[[Image.Image], torch.Tensor], device: torch.device, source: str
    ) -> None:
        self.model = model
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


@dataclass(frozen=True)
class WantedEmbedder:
    """An embedder that a build wants.

    Attributes:
        spec: a value of ``--embedder``. download: whether its weights may be downloaded: only if the user named it.
    """

    spec: str
    download: bool = True

    def find(self, device: torch.device) -> ChosenEmbedder:
        """Finds the embedder. "auto" is [Ret], even if CLIP's weights are on this disk: others may put them there.

        Args:
            device: where it is to compute.

        Raises:
            EmbedderUnavailable: there is no such embedder, or its weights are not on this disk and cannot be
                downloaded.
        """
        if self.spec in ("auto", "ret"):
            entry = EmbedderEntry(
                kind="ret", name="[Ret]", description="the checkpoint's own retrieval token, L2-normalised", spec="ret"
            )
            return ChosenEmbedder(entry, lambda: None)
        kind, _, source = (f"clip:{DEFAULT_CLIP}" if self.spec == "clip" else self.spec).partition(":")
        if kind != "clip" or not source:
            raise EmbedderUnavailable(f"there is no embedder {self.spec!r}; use {FORMS}, or auto.")
        with _told():
            found = find_clip(source, download=self.download)
        entry = EmbedderEntry(
            kind="clip",
            name=found.name,
            description=f"image vectors of {found.name}, by open_clip",
            spec=f"clip:{found.source}",
            sha256=hashlib.sha256("".join(map(hash_file, found.files)).encode()).hexdigest(),
        )

        def load() -> ClipEmbedder:
            with _told():
                return ClipEmbedder(*found.open(device), device, found.model)

        return ChosenEmbedder(entry, load)


@contextmanager
def _told() -> Iterator[None]:
    """Raises EmbedderUnavailable if the block cannot find or open a CLIP."""
    try:
        yield
    except ImportError as error:
        raise EmbedderUnavailable(
            "open_clip is not installed; run `pip install 'sketch-search[clip]'`, or use --embedder ret."
        ) from error
    except ModelError as error:
        raise EmbedderUnavailable(f"{error}, or use --embedder ret.") from error


# The limit of CLIP's training, which a larger logit scale would have made unstable.
_LARGEST_SCALE = 100.0
_FOLDER = "local-dir:"


class ClipTowers:
    """The text tower and the image tower of one open_clip model, in float32. Threads must not use it at once.

    Making one raises EmbedderUnavailable if the model has no text tower that can be used here.
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

        Its product with a photo's vector is the logit that the model was trained with. A text that is longer than the
        model's context, most often 77 tokens, is cut off.
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
        EmbedderUnavailable: the index was not clustered by CLIP; the model is not on this disk or has changed; or it
            has no text tower that can be used here.
    """
    chosen = WantedEmbedder(entry.spec, download=False).find(device)
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
    # The annotation is needed because open_clip has no types.
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
