"""Both towers of the CLIP model that an index was clustered by: vectors of texts and sketches, beside its photos'."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from indexer.embedding.embedders import ClipEmbedder, Floats, choose_embedder
from indexer.errors import EmbedderUnavailable
from indexer.store import EmbedderEntry

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
        """(e,) float32: the vector of a text, of unit length, times the model's logit scale.

        Its product with a photo's vector is the logit that the model was trained with. What is longer than the model's
        context, most often 77 tokens, is cut off.
        """
        vector = self._model.encode_text(self._tokenizer([text]).to(self._embedder.device))
        return (self._scale * F.normalize(vector.float(), dim=-1))[0].cpu().numpy()

    @torch.inference_mode()
    def image(self, picture: Image.Image) -> Floats:
        """(e,) float32 of unit length: the vector of an RGB picture."""
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
    if not isinstance(embedder, ClipEmbedder):
        raise EmbedderUnavailable(f"this index was clustered by {entry.name}, not by CLIP.")
    return ClipTowers(embedder, entry.name)


def _tokenizer(model: Any, source: str, name: str) -> Callable[[list[str]], torch.Tensor]:
    """The tokenizer of this model: open_clip's own, which needs no download."""
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
    """The part of a model's configuration that describes its text tower."""
    import open_clip

    if source.startswith(_FOLDER):
        saved = json.loads((Path(source.removeprefix(_FOLDER)) / "open_clip_config.json").read_text(encoding="utf-8"))
        config = saved["model_cfg"]
    else:
        config = open_clip.get_model_config(source)
    text: dict[str, Any] = config.get("text_cfg", {})
    return text
