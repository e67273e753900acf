"""Weights that are named on a hub, without a network."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from sketch_search.model.errors import ModelError
from sketch_search.model.network import find_clip, read_backbone, read_clip
from tests.indexer.clip_models import READING, saved_clip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub that has one CLIP, me/clip, where no hub can be reached."""
    snapshot = tmp_path / "models--me--clip" / "snapshots" / ("0" * 40)
    (tmp_path / "models--me--clip" / "refs").mkdir(parents=True)
    (tmp_path / "models--me--clip" / "refs" / "main").write_text("0" * 40)
    snapshot.parent.mkdir()
    shutil.move(saved_clip(tmp_path / "saved", READING), snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def unreachable(_: object, repository: str, timeout: float) -> None:
        assert timeout <= 10
        if repository == "me/nothing":
            raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    return tmp_path


@pytest.mark.usefixtures("cache")
def test_a_clip_of_a_hub_that_is_on_this_disk_is_read_without_asking() -> None:
    found = find_clip("hf-hub:me/clip", download=False)
    assert (found.source, found.name) == ("hf-hub:me/clip", "CLIP hf-hub:me/clip")
    assert read_clip("hf-hub:me/clip").text(["a star"]).shape == (1, 16)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("tag", ["vit_tiny_patch16_224.augreg_in21k", "hf-hub:timm/vit_tiny_patch16_224"])
def test_a_backbone_of_a_hub_that_cannot_be_reached_is_said_at_the_first_try(tag: str) -> None:
    with pytest.raises(ModelError, match=r"hub cannot be reached \(Name or service not known\)"):
        read_backbone(tag)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("hf-hub:me/nothing", "the hub has no public repository me/nothing"),
        ("hf-hub:me/other", "the hub cannot be reached"),
        ("ViT-B-32/laion2b_s34b_b79k", "the hub cannot be reached"),
    ],
)
def test_a_clip_that_cannot_be_had_is_named_with_the_reason(source: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        read_clip(source)
    with pytest.raises(ModelError, match="no longer on this disk"):
        find_clip(source, download=False)
