import dataclasses
import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from model.errors import ModelError
from model.network import ClipAtConfig, ClipAtNetwork, VitLayout, clip_at_network_from, read_clip
from tests.indexer.clip_models import READING, ret_of_clip, saved_clip
from tests.learning import small_backbone
from tests.networks import randn

LAYOUT = VitLayout(patch_size=16, width=32, depth=4, heads=2, mlp_width=64)
CONFIG = ClipAtConfig(name="small", vit=LAYOUT, image_size=64)


def disturbed(network: ClipAtNetwork) -> ClipAtNetwork:
    """Prompts and LayerNorms moved, as a training moves them."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for parameter in network.learned.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.eval()


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_clip(tmp_path_factory.mktemp("clip") / "clip", READING)


def clip_config(folder: Path) -> ClipAtConfig:
    encoder = read_clip(str(folder)).encoder
    return ClipAtConfig(
        name="of clip", vit=encoder.layout, image_size=encoder.image_size, mean=encoder.mean, std=encoder.std
    )


def test_prompts_stand_among_the_tokens_of_the_picture_before_the_first_layer_norm(clip_folder: Path) -> None:
    clip = read_clip(str(clip_folder))
    network = disturbed(clip_at_network_from(clip_config(clip_folder), clip.encoder.weights))
    visual = open_clip.create_model(f"local-dir:{clip_folder}").eval().visual
    images = randn(2, 3, 32, 32)
    for modality in ("sketch", "photo"):
        prompts, norms = network.learned.of(modality)
        visual.ln_pre.load_state_dict(norms.first.state_dict())
        visual.ln_post.load_state_dict(norms.last.state_dict())
        for block, first, second in zip(visual.transformer.resblocks, norms.attention, norms.mlp, strict=True):
            block.ln_1.load_state_dict(first.state_dict())
            block.ln_2.load_state_dict(second.state_dict())
        with torch.no_grad():
            found = network.encode(images, modality).ret
        torch.testing.assert_close(found, ret_of_clip(visual, images, prompts), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kept", "changes", "sentence"),
    [
        ("", {"vision_cfg": {**READING["vision_cfg"], "pool_type": "avg"}}, "is not a plain ViT with a class token"),
        ("visual.", {}, "has no text encoder, which CLIP-AT needs for the names of classes"),
        ("visual.", {"text_cfg": None}, "has no text encoder"),
    ],
)
def test_a_clip_of_another_kind_is_refused(
    kept: str, changes: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    folder = saved_clip(tmp_path / "clip", READING)
    weights = folder / "open_clip_model.safetensors"
    save_file({name: value for name, value in load_file(weights).items() if name.startswith(kept)}, weights)
    settings = {name: value for name, value in {**READING, **changes}.items() if value is not None}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": {}}))
    with pytest.raises(ModelError, match=sentence):
        read_clip(str(folder))


def test_weights_of_another_vit_are_refused() -> None:
    with pytest.raises(ModelError, match="not those of the ViT that was named"):
        clip_at_network_from(dataclasses.replace(CONFIG, vit=dataclasses.replace(LAYOUT, depth=3)), small_backbone())
    projected = dataclasses.replace(CONFIG, vit=dataclasses.replace(LAYOUT, projection=8))
    with pytest.raises(ModelError, match="has no projection to 8 numbers"):
        clip_at_network_from(projected, small_backbone())
