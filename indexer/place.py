"""Finds the default index. This module stands alone, so that a command that only asks a server loads nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from indexer.errors import BadInvocation
from model.terminal import expanded


def default_index_path() -> Path:
    """Returns ``SBIR_INDEX`` if it is set, else ``sketch-search/index`` in the platform's folder for data.

    Raises BadInvocation: there is no such folder, because the user has no home.
    """
    if path := os.environ.get("SBIR_INDEX"):
        return expanded(path)
    try:
        return platformdirs.user_data_path("sketch-search", appauthor=False) / "index"
    except RuntimeError as error:
        raise BadInvocation(
            "there is no home folder to keep the index in; name a folder with --index or SBIR_INDEX, or set HOME."
        ) from error
