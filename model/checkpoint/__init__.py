"""Reads and writes checkpoint files, converts released ones, and downloads public ones."""

from model.checkpoint.conversion import convert
from model.checkpoint.download import fetch, known_checkpoint, known_checkpoints
from model.checkpoint.file import (
    DESCRIPTION,
    average_checkpoints,
    default_checkpoint,
    file_sha256,
    find_photo_side,
    keep_photo_side,
    load_network,
    load_zse_network,
    photo_side_state,
    read_metadata,
    save_checkpoint,
    save_photo_side,
)
