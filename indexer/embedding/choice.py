"""Which embedder: from the value of ``--embedder`` to one that has been found."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from indexer.embedding.clip import (
    DEFAULT_CLIP,
    FORMS,
    clip_by_tag,
    clip_from_file,
    clip_from_folder,
)
from indexer.embedding.embedder import ChosenEmbedder, RetEmbedder
from indexer.errors import EmbedderUnavailable
from indexer.store import EmbedderEntry
from model.network import clip_source
from model.terminal import expanded, resolved


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
        return ChosenEmbedder(entry, RetEmbedder)
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
