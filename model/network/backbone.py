"""New networks from pretrained vision transformers.

timm is imported where it is used. That takes seconds, and programs that only search or index do not need it.
"""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from model.errors import ModelError
from model.network.config import ModelConfig
from model.network.encoder import Encoder
from model.network.zse import Network
from model.terminal import expanded

RENAMED = {
    "cls_token": "ret",
    "pos_embed": "position",
    "patch_embed.proj.weight": "tokenizer.patch.weight",
    "patch_embed.proj.bias": "tokenizer.patch.bias",
}


def read_backbone(source: str) -> dict[str, torch.Tensor]:
    """Weights under timm's key names, from a safetensors file or, downloaded if needed, by timm tag.

    Raises ModelError saying what to do.
    """
    import timm

    path = expanded(source)
    if path.is_file():
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ModelError(f"{path} is not a safetensors file ({error})") from error
    if path.suffix == ".safetensors" or "/" in source or not timm.is_model(source):
        raise ModelError(f"{source} is neither a safetensors file nor a timm model tag")
    try:
        state: dict[str, torch.Tensor] = timm.create_model(source, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the weights of {source} could not be fetched ({error}); give a safetensors file instead"
        ) from error
    return state


def from_backbone(config: ModelConfig, weights: dict[str, torch.Tensor], seed: int = 0) -> Network:
    """A network whose encoder starts as the given ViT. All other weights are random, and follow from ``seed``.

    The class token becomes [Ret], and the learnable tokenizer starts at zero. Position embeddings are resampled to
    the config's grid. The calibration is UNCALIBRATED, because the
    relation network is untrained.

    Raises ModelError where the ViT has other dimensions than the config.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(config)
    encoder = network.encoder
    if not isinstance(encoder, Encoder):
        return network
    if encoder.tokenizer.learnable is not None:
        encoder.tokenizer.learnable.start_at_zero()
    state = encoder.state_dict()
    given = {RENAMED.get(name, name): tensor.float() for name, tensor in weights.items()}
    if "position" in given and given["position"].ndim == 3 and given["position"].shape != state["position"].shape:
        given["position"] = _resampled(given["position"], config.grid)
    for name, tensor in state.items():
        if name.startswith("tokenizer.learnable."):
            continue
        if name not in given:
            raise ModelError(f"the backbone has no {name}; {config.name} needs a plain ViT with a class token")
        if given[name].shape != tensor.shape:
            raise ModelError(
                f"the backbone's {name} is {tuple(given[name].shape)}, {config.name} needs {tuple(tensor.shape)}; "
                "use the preset of its size"
            )
        state[name] = given[name]
    encoder.load_state_dict(state)
    return network


def _resampled(position: torch.Tensor, grid: int) -> torch.Tensor:
    """The position embedding (1, 1+g*g, d) for a grid of other sides, (1, 1+grid*grid, d)."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    moved: torch.Tensor = resample_abs_pos_embed(position, new_size=[grid, grid], num_prefix_tokens=1)
    return moved
