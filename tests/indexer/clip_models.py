"""CLIP models for the tests: small and random."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

SMALL: Mapping[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 64, "heads": 1, "layers": 1},
}


# The tokens of open_clip's own tokenizer, so that the model can read text.
READING: Mapping[str, Any] = {
    **SMALL,
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


def saved_clip(folder: Path, config: Mapping[str, Any] = SMALL, seed: int = 0) -> Path:
    """A small random model in ``folder``, saved as open_clip saves. With READING as ``config`` it can read text."""
    # Imported late, as it takes seconds.
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = open_clip.CLIP(**config)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return folder
