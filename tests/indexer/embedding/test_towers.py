from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer import EmbedderUnavailable, open_text_tower
from indexer.embedding import WantedEmbedder
from model.errors import ModelError
from model.network import ClipEmbedder, TextTower
from tests.indexer.clip_models import READING, saved_clip

CPU = "cpu"


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_clip(tmp_path_factory.mktemp("clip") / "reading-clip", READING)


def test_a_text_becomes_what_open_clip_gives(reading: Path) -> None:
    import open_clip

    towers = open_text_tower(WantedEmbedder(f"clip:{reading}").find(CPU).entry, CPU)
    network, _ = open_clip.create_model_from_pretrained(f"local-dir:{reading}")
    with torch.inference_mode():
        text = network.encode_text(open_clip.get_tokenizer(f"local-dir:{reading}")(["a dog"]), normalize=True)[0]
    np.testing.assert_allclose(
        towers.text("a dog"), text.numpy() * network.logit_scale.detach().exp().numpy(), rtol=1e-5
    )


def test_an_index_by_other_vectors_has_no_towers() -> None:
    with pytest.raises(EmbedderUnavailable, match=r"this index was clustered by \[Ret\], not by CLIP"):
        open_text_tower(WantedEmbedder("ret").find(CPU).entry, CPU)


def test_a_model_that_has_changed_since_or_is_gone_is_refused(reading: Path, tmp_path: Path) -> None:
    shutil.copytree(reading, tmp_path / "clip")
    entry = WantedEmbedder(f"clip:{tmp_path / 'clip'}").find(CPU).entry
    shutil.rmtree(tmp_path / "clip")
    with pytest.raises(EmbedderUnavailable, match="is neither a file nor an open_clip model with weights"):
        open_text_tower(entry, CPU)
    saved_clip(tmp_path / "clip", READING, seed=1)
    with pytest.raises(EmbedderUnavailable, match="another model by now than the one that this index was clustered by"):
        open_text_tower(entry, CPU)


def test_weights_are_never_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reading: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    entry = (
        WantedEmbedder(f"clip:{reading}")
        .find(CPU)
        .entry.model_copy(update={"spec": "clip:ViT-B-32/datacomp_s_s13m_b4k"})
    )
    with pytest.raises(EmbedderUnavailable, match="are not on this disk any more"):
        open_text_tower(entry, CPU)


def test_a_tokenizer_that_would_be_downloaded_is_refused(reading: Path, tmp_path: Path) -> None:
    shutil.copytree(reading, tmp_path / "clip")
    text = {**READING["text_cfg"], "hf_tokenizer_name": "somebody/tokenizer"}
    config = {"model_cfg": {**READING, "text_cfg": text}, "preprocess_cfg": {}}
    (tmp_path / "clip" / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(EmbedderUnavailable, match="needs a tokenizer that does not come with open_clip"):
        open_text_tower(WantedEmbedder(f"clip:{tmp_path / 'clip'}").find(CPU).entry, CPU)


def test_a_text_tower_that_cannot_read_is_refused(tmp_path: Path) -> None:
    clip = saved_clip(tmp_path / "clip")
    with pytest.raises(EmbedderUnavailable, match="knows 32 tokens, and open_clip's tokenizer has 49,408"):
        open_text_tower(WantedEmbedder(f"clip:{clip}").find(CPU).entry, CPU)


def test_a_model_without_a_text_tower_is_refused() -> None:
    pictures_only = ClipEmbedder(torch.nn.Linear(2, 2), torch.as_tensor, CPU, "ViT-B-32")
    with pytest.raises(ModelError, match="CLIP of somebody has no text tower"):
        TextTower(pictures_only, "CLIP of somebody")
