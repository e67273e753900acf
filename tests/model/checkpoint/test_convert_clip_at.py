"""Released CLIP-AT files: they give what the public code computes, and others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

import model
from indexer import build, open_index
from model.checkpoint.conversion import convert
from model.commands import main
from model.errors import ModelError
from model.network.config import Modality
from tests.indexer.clip_models import SMALL
from tests.pictures import drawing, photo

PROMPTS = 3


@pytest.fixture(scope="module")
def clip() -> Any:
    """A CLIP as OpenAI's: with another GELU than open_clip's own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return open_clip.CLIP(**SMALL, quick_gelu=True).eval()


@pytest.fixture(scope="module")
def state(clip: Any) -> dict[str, torch.Tensor]:
    """Under the names of the public code: a model that has CLIP, and prompts for sketches and for photos."""
    found = {f"clip.{name}": tensor.half().float() for name, tensor in clip.state_dict().items()}
    clip.load_state_dict({name.removeprefix("clip."): tensor for name, tensor in found.items()})
    generator = torch.Generator().manual_seed(1)
    for name in ("sk_prompt", "img_prompt"):
        found[name] = torch.randn(PROMPTS, 64, generator=generator)
    return found


def lightning(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """An entry that PyTorch Lightning saves beside the weights."""
    callback = {"monitor": "val_loss", "best_model_score": torch.tensor(0.1), "best_model_path": "last.ckpt"}
    return {
        "epoch": 3,
        "global_step": 30,
        "pytorch-lightning_version": "1.5.0",
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": callback},
        "optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}],
        "lr_schedulers": [],
        "state_dict": {name: t.half() if name.startswith("clip.visual.proj") else t for name, t in state.items()},
    }


def test_a_released_file_gives_what_the_public_code_computes(
    clip: Any, state: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(lightning(state), tmp_path / "last.ckpt")
    assert main(["convert", str(tmp_path / "last.ckpt"), str(tmp_path / "c.safetensors")]) == 0
    matcher = model.load(tmp_path / "c.safetensors")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    visual = clip.visual
    modalities: tuple[tuple[Modality, str], ...] = (("sketch", "sk_prompt"), ("photo", "img_prompt"))
    for modality, name in modalities:
        with torch.no_grad():
            patches = visual.conv1(images).flatten(2).transpose(1, 2)
            tokens = torch.cat([visual.class_embedding.expand(2, 1, -1), patches], dim=1) + visual.positional_embedding
            tokens = torch.cat([tokens, state[name].expand(2, -1, -1)], dim=1)
            expected = visual.ln_post(visual.transformer(visual.ln_pre(tokens))[:, 0]) @ visual.proj
        torch.testing.assert_close(matcher.encode(images, modality).ret, expected, atol=1e-5, rtol=1e-5)
    capsys.readouterr()
    assert main(["info", str(tmp_path / "c.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "clip-at-released" in said
    assert "converted from a released CLIP-AT checkpoint" in said
    assert "padding" in said


def test_its_pictures_are_padded_and_normalised_as_the_public_code_does_it(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    convert(tmp_path / "last.ckpt", tmp_path / "c.safetensors")
    matcher = model.load(tmp_path / "c.safetensors")
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    found = matcher.prepare(photo("star", 96, 1).crop((0, 0, 96, 48)), "photo")
    for rows in (slice(0, 8), slice(24, 32)):
        torch.testing.assert_close(found[:, rows], (-mean / std)[:, None, None].expand(-1, 8, 32))
    sketch = matcher.prepare(drawing("star", 96, 1), "sketch")
    torch.testing.assert_close(sketch[:, 0, 0], (1 - mean) / std, msg="paper stays at the edges: nothing is cropped")


def test_an_index_has_the_vectors_of_padded_photos(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    convert(tmp_path / "last.ckpt", tmp_path / "c.safetensors")
    matcher = model.load(tmp_path / "c.safetensors")
    wide = photo("star", 96, 1).crop((0, 0, 96, 40))
    (tmp_path / "photos").mkdir()
    wide.save(tmp_path / "photos" / "wide.png")
    build([tmp_path / "photos"], tmp_path / "index", matcher, embedder="ret")
    expected = matcher.encode(matcher.prepare(wide, "photo")[None], "photo").ret
    with open_index(tmp_path / "index", matcher) as index:
        stored = index.vectors.of()[:1].float()
    torch.testing.assert_close(stored, torch.nn.functional.normalize(expected, dim=1), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"img_prompt": torch.zeros(3, 63)}, r"its prompts are not \(k, 64\)"),
        ({"sk_prompt": torch.zeros(2, 64)}, r"its prompts are not \(k, 64\)"),
        ({"clip.visual.proj": None}, "these are not the weights of a ViT of CLIP: 'proj'"),
        ({"clip.visual.ln_pre.bias": None}, "not those of the ViT that was named"),
        ({"sk_prompt": None}, "not a released ZSE-SBIR checkpoint"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    changes: dict[str, torch.Tensor | None], sentence: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    odd = {name: tensor for name, tensor in {**state, **changes}.items() if tensor is not None}
    torch.save({"state_dict": odd}, tmp_path / "odd.ckpt")
    with pytest.raises(ModelError, match=sentence):
        convert(tmp_path / "odd.ckpt", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
