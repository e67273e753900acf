"""Public checkpoints that weights/known.toml lists, and their download."""

from __future__ import annotations

import os
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

import weights
from model.checkpoint.file import file_sha256
from model.errors import ModelError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_RECORD: TypeAdapter[dict[str, Sha256]] = TypeAdapter(dict[str, Sha256])


class KnownCheckpoint(BaseModel):
    """One entry of weights/known.toml; the comment at its beginning explains the fields."""

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
        """Approximate size of the file: four bytes for each parameter; 1 MB is 10^6 bytes."""
        return round(self.parameters * 4 / 1e6)

    def command(self, path: Path, *, cached: bool) -> str:
        """The command that uses the file at ``path``; ``cached``: whether it is in the Hugging Face cache."""
        if self.kind == "clip" and not cached:
            spec = f"clip:{self.name.partition('/')[0]}@{path}"
            return f"sketch-search index build FOLDER --embedder {shlex.quote(spec)}"
        return self.use.replace("FILE", shlex.quote(str(path)))


@dataclass(frozen=True)
class Fetched:
    """A file that was downloaded, now or before.

    Attributes:
        path: where it is.
        sha256: hex digest of its bytes.
        checked: what the digest was compared with: "registry", weights/known.toml; "record", what an earlier fetch
            recorded; "nothing", because there was neither, so that it was recorded for the next time.
    """

    path: Path
    sha256: str
    checked: Literal["registry", "record", "nothing"]


def known_checkpoints() -> tuple[KnownCheckpoint, ...]:
    """All entries of weights/known.toml."""
    text = Path(weights.__file__).with_name("known.toml").read_text("utf-8")
    return TypeAdapter(tuple[KnownCheckpoint, ...]).validate_python(tomllib.loads(text)["checkpoint"])


def known_checkpoint(name: str) -> KnownCheckpoint:
    """The entry of that name. Raises ModelError with the known names for another one."""
    entries = known_checkpoints()
    for entry in entries:
        if entry.name == name:
            return entry
    raise ModelError(f"{name!r} is not known here; choose one of {', '.join(entry.name for entry in entries)}")


def default_record() -> Path:
    """The file in which the hashes of downloaded files are recorded."""
    return platformdirs.user_data_path("sketch-search", appauthor=False) / "fetched.json"


def fetch(entry: KnownCheckpoint, folder: Path | None = None, record: Path | None = None) -> Fetched:
    """Downloads the file of ``entry`` unless it is on this disk, and checks it. A file that fails the check is deleted.

    Args:
        folder: where it goes; None for the Hugging Face cache, where open_clip, timm and the indexer find it.
        record: file of recorded hashes; None for ``default_record()``.

    Raises ModelError: it has to be fetched by hand, cannot be downloaded, or has another hash; says what to do.
    """
    if entry.repository is None:
        raise ModelError(f"{entry.name} has to be fetched by hand: {entry.source}. Then: {entry.use}")
    record = record if record is not None else default_record()
    recorded = _read_record(record)
    path = _download(entry, entry.repository, folder)
    key = f"{entry.repository}/{path.name}"
    digest = file_sha256(path)
    expected = entry.sha256 or recorded.get(key)
    if expected is not None and digest != expected:
        _delete(path)
        known, remedy = (
            ("should have", "somebody changed it on its way or at its source")
            if entry.sha256
            else ("had, when it was first fetched,", f"if it is meant to be another now, delete {key} from {record}")
        )
        raise ModelError(
            f"{key} has the SHA-256 {digest} and {known} {expected}, so it was deleted; try again, and {remedy}"
        )
    if entry.sha256:
        return Fetched(path, digest, "registry")
    if expected is None:
        _write_record(record, recorded | {key: digest})
    return Fetched(path, digest, "nothing" if expected is None else "record")


def _download(entry: KnownCheckpoint, repository: str, folder: Path | None) -> Path:
    # Imported late: it is part of an extra, and every program that opens a checkpoint imports this room.
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
        # Which errors the library raises depends on the HTTP client that its version uses.
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


def _delete(path: Path) -> None:
    # In the cache, the name is a symbolic link to the file with the bytes.
    path.resolve().unlink()
    path.unlink(missing_ok=True)


def _read_record(record: Path) -> dict[str, str]:
    try:
        return _RECORD.validate_json(record.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        raise ModelError(f"{record} is damaged; delete it; hashes are then recorded again") from error


def _write_record(record: Path, hashes: dict[str, str]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    partial = record.with_name(record.name + ".partial")
    partial.write_bytes(_RECORD.dump_json(hashes, indent=1))
    os.replace(partial, record)
