"""Converts the released files of ZSE-SBIR (.pth) and of CLIP-AT (.ckpt) to checkpoints."""

import dataclasses
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from sketch_search.model.checkpoint.file import save_checkpoint
from sketch_search.model.engine import Calibration, ZseConfig, preset
from sketch_search.model.errors import ModelError
from sketch_search.model.network import ClipAtConfig, ClipAtNetwork, Network, clip_at_network_from, clip_encoder, rename

# Types that unpickling the numpy scalars beside the weights needs; files written with numpy 1 use the old path.
SAFE_GLOBALS = [
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    np.dtype,
    np.dtypes.Float64DType,
]

RENAMED = (
    (r"^sa\.model\.pos_embedding$", "encoder.position"),
    (r"^sa\.model\.cls$", "encoder.ret"),
    (r"^sa\.model\.embedding\.", "encoder.tokenizer.patch."),
    (r"^sa\.model\.scale\.seq\.", "encoder.tokenizer.learnable.layers."),
    (r"^sa\.model\.transformer\.encoder_norm\.", "encoder.norm."),
    (r"^sa\.model\.transformer\.layers\.(\d+)\.0\.layer_norm_input\.", r"encoder.blocks.\1.norm1."),
    (r"^sa\.model\.transformer\.layers\.(\d+)\.0\.layer_norm_out\.", r"encoder.blocks.\1.norm2."),
    (r"^sa\.model\.transformer\.layers\.(\d+)\.0\.attention\.to_qkv\.", r"encoder.blocks.\1.attn.qkv."),
    (r"^sa\.model\.transformer\.layers\.(\d+)\.0\.attention\.to_out\.0\.", r"encoder.blocks.\1.attn.proj."),
    (r"^sa\.model\.transformer\.layers\.(\d+)\.0\.mlp\.net\.0\.", r"encoder.blocks.\1.mlp.fc1."),
    (r"^sa\.model\.transformer\.layers\.(\d+)\.0\.mlp\.net\.3\.", r"encoder.blocks.\1.mlp.fc2."),
    (r"^ca\.encoder\.layer1\.0\.", "cross.sketch."),
    (r"^ca\.encoder\.layer2\.0\.", "cross.photo."),
    (r"self_attn\.linears\.0\.", "query."),
    (r"self_attn\.linears\.1\.", "key."),
    (r"self_attn\.linears\.2\.", "value."),
    (r"self_attn\.linears\.3\.", "out."),
    (r"feed_forward\.w_1\.", "ffn.0."),
    (r"feed_forward\.w_2\.", "ffn.3."),
    (r"sublayer\.0\.norm\.a$", "norm1.weight"),
    (r"sublayer\.0\.norm\.b$", "norm1.bias"),
    (r"sublayer\.1\.norm\.a$", "norm2.weight"),
    (r"sublayer\.1\.norm\.b$", "norm2.bias"),
    (r"^rn\.rn\.", "relation.mlp."),
    (r"^conv2d\.", "relation.downsample."),
)
# The released code builds these layers but never calls them.
UNUSED = "ca.encoder.layers."
# Released networks are trained for both methods and measured by the relation network, on sketches as they are.
RELEASED_CALIBRATION = Calibration(methods=("rn", "ret"), best_method="rn", variants=1)


def released_config() -> ZseConfig:
    """Returns the configuration of the paper's network with all ``released_`` fields switched on."""
    return dataclasses.replace(
        preset("zse-b16"),
        name="zse-b16-released",
        norm_eps=1e-5,
        released_preprocessing=True,
        released_tokenizer_average=True,
        released_value_from_query=True,
        released_kernel_view=True,
        released_cross_norm=True,
    )


def read_released(path: Path) -> dict[str, torch.Tensor]:
    """Reads the state dict in a released file without running code in it. Raises ModelError for any other file."""
    if not path.is_file():
        raise ModelError(f"no file at {path}")
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS), warnings.catch_warnings():
            # PyTorch warns about unusual pickles before it refuses them; the error below says enough.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    # Unpickling unknown bytes may raise any error, and PyTorch refuses to unpickle a file named .safetensors.
    except Exception as error:
        # PyTorch's own message advises loading the file without this check.
        reason = "; it contains something else" if isinstance(error, pickle.UnpicklingError) else ", or it is damaged"
        raise ModelError(f"{path} is not a released checkpoint of tensors and numbers alone{reason}") from error
    state = content.get("model", content.get("state_dict")) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise ModelError(
            f'{path} holds no "model" state dict of ZSE-SBIR, nor a "state_dict" of CLIP-AT; expected a released '
            "checkpoint"
        )
    return state


def convert(source: Path, target: Path) -> None:
    """Writes the released file ``source`` as the checkpoint ``target``. Raises ModelError with what does not fit."""
    state = read_released(source)
    # These are the weights of a model of CLIP-AT's public code.
    if set(PROMPTS.values()) <= set(state):
        origin = "converted from a released CLIP-AT checkpoint"
        save_checkpoint(build_clip_at(state, source), target, {"origin": origin})
        return
    config = released_config()
    first = state.get("rn.rn.0.weight")
    if first is not None and first.ndim == 2 and first.shape[1] != (config.grid // 2) ** 4:
        raise ModelError(
            f"{source} has a relation network for {round(first.shape[1] ** 0.5)} tokens; only those for 49 can be "
            "used, because the released forward pass always downsamples to 49"
        )
    kept = {key: value.float() for key, value in state.items() if not key.startswith(UNUSED)}
    own = {rename(key, RENAMED): value for key, value in kept.items()}
    network = Network(config, RELEASED_CALIBRATION)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if given != expected:
        odd = sorted(expected.items() ^ given.items())
        raise ModelError(f"{source} is not a released ZSE-SBIR checkpoint: {len(odd)} entries differ, first {odd[0]}")
    network.load_state_dict(own)
    save_checkpoint(network, target, {"origin": "converted from a released ZSE-SBIR checkpoint"})


# The learned tokens of sketches and of photos, (k, width) each, and the names of the encoder that both share.
PROMPTS = {"sketch": "sk_prompt", "photo": "img_prompt"}
_ENCODER = "clip.visual."
# The public code normalises as ImageNet's networks do, not as CLIP does.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_clip_at(state: Mapping[str, torch.Tensor], source: Path) -> ClipAtNetwork:
    """Builds the network in a released file, without its text encoder. Raises ModelError with what does not fit."""
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
