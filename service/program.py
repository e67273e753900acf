"""The name of this program."""

from __future__ import annotations

PROGRAM = "sketch-search"
