"""Archives as the optional data has them, with files that a test makes."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path


def pack(archive: Path, files: Mapping[str, bytes]) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
