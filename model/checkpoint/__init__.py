"""Reads and writes checkpoint files, and converts released ones."""

from model.checkpoint.conversion import convert
from model.checkpoint.file import (
    average_checkpoints,
    keep_photo_side,
    load_network,
    load_zse_network,
    photo_side_notes,
    photo_side_state,
    replacing,
    save_checkpoint,
    save_photo_side,
)
