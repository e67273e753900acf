"""Downloads the public checkpoints that weights/known.toml lists."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

import weights
from model.engine import file_sha256
from model.errors import ModelError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class KnownCheckpoint(BaseModel):
    """An entry of weights/known.toml, which explains the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["clip", "backbone", "released"]
    purpose: str
    licence: str
    source: str
    use: str
    parameters: int = Field(gt=0)
    repository: str | None = None
    files: tuple[str, ...] = ()
    sha256: Sha256 | None = None

    @property
    def megabytes(self) -> int:
        """Approximate size of the file: four bytes for each parameter."""
        return round(self.parameters * 4 / 1e6)

    def command(self, path: Path, *, cached: bool) -> str:
        """Writes the command that uses the file at ``path``; ``cached``: whether it is in the Hugging Face cache."""
        if self.kind == "clip" and not cached:
            spec = f"clip:{self.name.partition('/')[0]}@{path}"
            return f"sketch-search index build FOLDER --embedder {shlex.quote(spec)}"
        return self.use.replace("FILE", shlex.quote(str(path)))


def known_checkpoints() -> tuple[KnownCheckpoint, ...]:
    text = Path(weights.__file__).with_name("known.toml").read_text("utf-8")
    return TypeAdapter(tuple[KnownCheckpoint, ...]).validate_python(tomllib.loads(text)["checkpoint"])


def known_checkpoint(name: str) -> KnownCheckpoint:
    """Finds the entry of this name. Raises ModelError, with the known names, if there is none."""
    entries = known_checkpoints()
    for entry in entries:
        if entry.name == name:
            return entry
    raise ModelError(f"{name!r} is not known here; choose one of {', '.join(entry.name for entry in entries)}")


def fetch(entry: KnownCheckpoint, folder: Path | None = None) -> tuple[Path, str]:
    """Downloads the file of ``entry`` unless it is on this disk; returns its path and SHA-256, in hex.

    folder: None for the Hugging Face cache. Raises ModelError if it has to be fetched by hand, cannot be downloaded, or
    has another hash, and is deleted.
    """
    if entry.repository is None:
        raise ModelError(f"{entry.name} has to be fetched by hand: {entry.source}. Then: {entry.use}")
    path = _download(entry, entry.repository, folder)
    digest = file_sha256(path)
    if entry.sha256 not in (None, digest):
        # In the cache, the name is a symbolic link to the file with the bytes.
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise ModelError(
            f"{entry.repository}/{path.name} has the SHA-256 {digest} and should have {entry.sha256}, so it was "
            "deleted: it was changed on its way or at its source; try again"
        )
    return path, digest


def _download(entry: KnownCheckpoint, repository: str, folder: Path | None) -> Path:
    # It is imported late because it is part of an extra, and every program that opens a checkpoint imports this room.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    by_hand = f"or fetch {' or '.join(entry.files)} of {repository} by hand"
    for name in entry.files:
        try:
            return Path(hf_hub_download(repository, name, local_dir=folder))
        except LocalEntryNotFoundError as error:
            raise ModelError(
                f"{entry.name} is not on this disk and the Hugging Face Hub does not answer; connect to the network, "
                f"unset HF_HUB_OFFLINE, {by_hand}"
            ) from error
        except EntryNotFoundError:
            continue
        # The library's errors depend on the HTTP client that its version uses.
        except Exception as error:
            lines = str(error).strip().splitlines()
            reason = lines[0][:200] if lines else type(error).__name__
            raise ModelError(
                f"{entry.name} could not be downloaded ({reason}); try again, since what has arrived is kept, {by_hand}"
            ) from error
    raise ModelError(
        f"{repository} has no file {' or '.join(entry.files)} any more; install a newer sketch-search, or look for its "
        "weights on the Hugging Face Hub by hand"
    )
