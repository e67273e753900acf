"""Reads and writes checkpoint files, and converts released ones."""

from model.checkpoint.conversion import convert
from model.checkpoint.file import (
    average_checkpoints,
    keep_photo_side,
    load_network,
    load_zse_network,
    read_photo_side,
    replacing,
    save_checkpoint,
    save_photo_side,
)
