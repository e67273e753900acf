"""What environment variables say where the command line says nothing."""

from __future__ import annotations

import os


def environment(name: str) -> str:
    """The value of an environment variable; "auto" where it is unset or empty."""
    return os.environ.get(name) or "auto"
