"""Reads and writes checkpoint files, and converts released ones."""

from sketch_search.model.checkpoint.conversion import convert
from sketch_search.model.checkpoint.file import (
    average_checkpoints,
    keep_photo_side,
    load_network,
    load_zse_network,
    photo_side_tensors,
    read_photo_side,
    replacing,
    save_checkpoint,
    save_photo_side,
)
