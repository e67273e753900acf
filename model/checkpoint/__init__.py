"""Reads and writes checkpoint files, converts released ones, and downloads public ones."""

from model.checkpoint.conversion import convert
from model.checkpoint.download import fetch, known_checkpoint, known_checkpoints
from model.checkpoint.file import (
    average_checkpoints,
    keep_photo_side,
    load_network,
    load_zse_network,
    photo_side_notes,
    photo_side_state,
    save_checkpoint,
    save_photo_side,
)
