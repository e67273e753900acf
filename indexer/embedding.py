"""Embedders, which compute the vectors that photos are clustered by: [Ret] or CLIP."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sketch_search.indexer.errors import EmbedderUnavailable
from sketch_search.indexer.store.files import hash_file
from sketch_search.indexer.store.generation import EmbedderEntry
from sketch_search.model.errors import ModelError

if TYPE_CHECKING:
    from sketch_search.model.training.network import ClipEmbedder, TextTower


@dataclass(frozen=True)
class ChosenEmbedder:
    """An embedder. ``load``, called for new photos only, gives None for [Ret], and raises EmbedderUnavailable."""

    entry: EmbedderEntry
    load: "Callable[[], ClipEmbedder | None]"


# Where the weights of ``model.training.network.DEFAULT_CLIP`` are published; a test compares them.
DEFAULT_CLIP_REPOSITORY = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
# The forms of ``--embedder``, for the message about an unknown one.
FORMS = "ret, clip, clip:MODEL/PRETRAINED, clip:MODEL@FILE or clip:FOLDER"


def find_embedder(spec: str, device: str, *, download: bool = False) -> ChosenEmbedder:
    """Finds the embedder of ``--embedder``: "auto" is CLIP if it is on this disk. Raises EmbedderUnavailable."""
    if spec == "auto":
        spec = "clip" if _has_clip() else "ret"
    if spec == "ret":
        description = "the checkpoint's own retrieval token, L2-normalised"
        return ChosenEmbedder(
            EmbedderEntry(kind="ret", name="[Ret]", description=description, spec="ret"), lambda: None
        )
    kind, colon, source = spec.partition(":")
    if kind != "clip" or (colon and not source):
        raise EmbedderUnavailable(f"unknown embedder {spec!r}; use {FORMS}, or auto.")
    with _refuse_if_unavailable():
        from sketch_search.model.training.network import DEFAULT_CLIP, find_clip

        clip = find_clip(source or DEFAULT_CLIP, download=download)
    entry = EmbedderEntry(
        kind="clip",
        name=clip.name,
        description=f"image vectors of {clip.name}, by open_clip",
        spec=f"clip:{clip.source}",
        sha256=hashlib.sha256("".join(map(hash_file, clip.files)).encode()).hexdigest(),
    )

    def load() -> "ClipEmbedder":
        from sketch_search.model.training.network import ClipEmbedder

        with _refuse_if_unavailable():
            return ClipEmbedder(*clip.open(device), device, clip.model)

    return ChosenEmbedder(entry, load)


def _has_clip() -> bool:
    """Returns True if open_clip is installed and a snapshot of its default model is on this disk, without PyTorch."""
    if find_spec("open_clip") is None:
        return False
    from huggingface_hub import constants

    folder = "--".join(("models", *DEFAULT_CLIP_REPOSITORY.split("/")))
    return any((Path(constants.HF_HUB_CACHE) / folder / "snapshots").glob("*/*.safetensors"))


@contextmanager
def _refuse_if_unavailable() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise EmbedderUnavailable(
            "open_clip is not installed; run `pip install 'sketch-search[clip]'`, or use --embedder ret."
        ) from error
    except ModelError as error:
        raise EmbedderUnavailable(f"{error}, or use --embedder ret.") from error


def open_text_tower(entry: EmbedderEntry, device: str) -> "TextTower":
    """Loads the model that an index was clustered by, from this disk. Raises EmbedderUnavailable."""
    chosen = find_embedder(entry.spec, device)
    if not chosen.entry.same(entry):
        raise EmbedderUnavailable(
            f"{entry.spec} has changed since this index was clustered by it; restore the old model, "
            "or run `sketch-search index build` with --embedder."
        )
    embedder = chosen.load()
    if embedder is None:
        raise EmbedderUnavailable(f"this index was clustered by {entry.name}, not by CLIP.")
    from sketch_search.model.training.network import TextTower

    try:
        return TextTower(embedder, entry.name)
    except ModelError as error:
        raise EmbedderUnavailable(f"{error}.") from error
