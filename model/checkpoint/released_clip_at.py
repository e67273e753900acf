"""Released CLIP-AT files (.ckpt) to networks: the public code of the category model, as PyTorch Lightning saves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from model.errors import ModelError
from model.network import Calibration, ClipAtConfig, ClipAtNetwork, clip_at_network_from, clip_encoder

# The learned tokens of sketches and of photos, (k, width) each, and the names of the encoder that both share.
PROMPTS = {"sketch": "sk_prompt", "photo": "img_prompt"}
_ENCODER = "clip.visual."
# The public code normalises as ImageNet's networks do, not as CLIP does.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def is_released_clip_at(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are the weights of a model of the public code."""
    return set(PROMPTS.values()) <= set(state)


def released_clip_at(state: Mapping[str, torch.Tensor], source: Path) -> ClipAtNetwork:
    """The network in a released file. Its text encoder is left out: a search does not need it.

    Raises ModelError with what does not fit.
    """
    weights = {key.removeprefix(_ENCODER): value for key, value in state.items() if key.startswith(_ENCODER)}
    prompts = {modality: state[name].float() for modality, name in PROMPTS.items()}
    try:
        vit = clip_encoder(weights, mean=_MEAN, std=_STD)
        shapes = {tuple(value.shape) for value in prompts.values()}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 2 or shape[1] != vit.layout.width:
            raise ModelError(f"its prompts are not (k, {vit.layout.width})")
        config = ClipAtConfig(
            name="clip-at-released",
            vit=vit.layout,
            image_size=vit.image_size,
            prompts=shape[0],
            shared_norms=True,
            mean=vit.mean,
            std=vit.std,
            released_padding=True,
        )
        network = clip_at_network_from(config, vit.weights)
    except ModelError as error:
        raise ModelError(f"{source} is not a released CLIP-AT checkpoint: {error}") from error
    with torch.no_grad():
        for modality, values in prompts.items():
            network.learned.prompts[modality].copy_(values)
    return network.with_calibration(Calibration(methods=("ret",), best_method="ret", variants=1))
