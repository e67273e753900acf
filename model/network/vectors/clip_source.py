"""How people name a CLIP of open_clip: by published weights, by a file of weights, or by a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.terminal import expanded


@dataclass(frozen=True)
class ClipSource:
    """A CLIP that was named. Whether there is one of that name, is not said by this.

    Attributes:
        model: as open_clip calls it: the name of an architecture, or "local-dir:FOLDER"; empty where none was named.
        folder: where open_clip saved it; None if it is not in a folder.
        file: of its weights, for MODEL@FILE; else None.
        tag: of its published weights, for MODEL/PRETRAINED; else empty.
    """

    model: str
    folder: Path | None = None
    file: Path | None = None
    tag: str = ""

    def published(self) -> Mapping[str, Any]:
        """What open_clip knows of published weights of that name; empty where it knows none."""
        import open_clip

        known: Mapping[str, Any] = open_clip.get_pretrained_cfg(self.model, self.tag) if self.model else {}
        return known

    def is_known(self) -> bool:
        """Whether open_clip knows the architecture."""
        import open_clip

        return self.model in open_clip.list_models()


def clip_source(source: str) -> ClipSource:
    """Reads MODEL/PRETRAINED, MODEL@FILE, or a folder that is there; ``~`` is a home folder."""
    path = expanded(source)
    if path.is_dir():
        return ClipSource(f"local-dir:{path}", folder=path)
    model, at, file = source.partition("@")
    if at:
        return ClipSource(model, file=expanded(file))
    model, _, tag = source.rpartition("/")
    return ClipSource(model, tag=tag)
