"""CLIP models for the tests: small and random."""

from __future__ import annotations

import json
from pathlib import Path

import torch

SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 64, "heads": 1, "layers": 1},
}


def saved_clip(folder: Path) -> Path:
    """A small random model in ``folder``, saved as open_clip saves."""
    # Imported late, as it takes seconds.
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL, "preprocess_cfg": {}}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = open_clip.CLIP(**SMALL)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return folder
