"""Checkpoint files: reading, writing, converting released ones, downloading public ones."""

from model.checkpoint.conversion import convert
from model.checkpoint.download import fetch, known_checkpoint, known_checkpoints
from model.checkpoint.file import default_checkpoint, file_sha256, load_network, read_metadata, save_checkpoint

__all__ = [
    "convert",
    "default_checkpoint",
    "fetch",
    "file_sha256",
    "known_checkpoint",
    "known_checkpoints",
    "load_network",
    "read_metadata",
    "save_checkpoint",
]
