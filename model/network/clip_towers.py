"""CLIP's two towers by open_clip: vectors of photos, which an index may be clustered by, of texts and of sketches."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from model.engine import Floats, unit
from model.errors import ModelError

_CHUNK = 16
# The limit of CLIP's training, which a larger logit scale would have made unstable.
_LARGEST_SCALE = 100.0
_FOLDER = "local-dir:"


class ClipEmbedder:
    """An open_clip image encoder, in float32. It gives every photo a vector of unit length.

    Attributes:
        model: the open_clip model. transform: its PIL -> (3, H, W) preprocessing. device: where it runs.
        source: its name in open_clip: that of an architecture, or "local-dir:FOLDER".
    """

    def __init__(
        self, model: Any, transform: Callable[[Image.Image], torch.Tensor], device: torch.device | str, source: str
    ) -> None:
        self.model = model
        self.transform = transform
        self.device = device
        self.source = source

    def prepare(self, image: Image.Image) -> Floats:
        """Prepares an RGB picture as this model was trained: (3, H, W). Several threads may call it."""
        pixels: Floats = self.transform(image).numpy()
        return pixels

    @torch.inference_mode()
    def embed(self, inputs: Sequence[Floats]) -> Floats:
        """Computes the model's image features of b prepared photos, (b, e) float32, L2-normalised.

        They are computed in chunks of one size, the last one padded, so that a photo's vector does not depend on the
        photos that are computed with it.
        """
        images = torch.from_numpy(np.stack(inputs))
        out = []
        for start in range(0, len(images), _CHUNK):
            block = images[start : start + _CHUNK]
            padded = torch.zeros(_CHUNK, *block.shape[1:])
            padded[: len(block)] = block
            out.append(self.model.encode_image(padded.to(self.device))[: len(block)].float().cpu())
        return unit(torch.cat(out).numpy())


class ClipTowers:
    """The text tower and the image tower of one open_clip model, in float32. Threads must not use it at once.

    Making one raises ModelError if the model has no text tower that can be used here.
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
        scaled: Floats = (self._scale * F.normalize(vector.float(), dim=-1))[0].cpu().numpy()
        return scaled

    @torch.inference_mode()
    def image(self, picture: Image.Image) -> Floats:
        """Encodes an RGB picture: (e,) float32 of unit length."""
        image = self._embedder.transform(picture)[None].to(self._embedder.device)
        vector: Floats = F.normalize(self._model.encode_image(image).float(), dim=-1)[0].cpu().numpy()
        return vector


def _tokenizer(model: Any, source: str, name: str) -> Callable[[list[str]], torch.Tensor]:
    """Returns open_clip's own tokenizer of this model, which needs no download."""
    embeddings = [part for path, part in model.named_modules() if path.endswith("token_embedding")]
    if not embeddings or not hasattr(model, "encode_text"):
        raise ModelError(f"{name} has no text tower; use a CLIP model that has one")
    if "siglip" in source.lower() or _text_config(source).get("hf_tokenizer_name"):
        raise ModelError(
            f"the text tower of {name} needs a tokenizer that does not come with open_clip; use a model such as "
            "ViT-B-32"
        )
    import open_clip

    tokenizer = open_clip.get_tokenizer(source)
    if tokenizer.vocab_size > embeddings[0].num_embeddings:
        raise ModelError(
            f"the text tower of {name} knows {embeddings[0].num_embeddings:,} tokens, and open_clip's tokenizer has "
            f"{tokenizer.vocab_size:,}; use another CLIP model"
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
