"""The base of all errors that a program tells in one sentence."""

from __future__ import annotations


class Refusal(Exception):
    """A request that cannot be done. The message is a sentence that says why, and what to do."""
