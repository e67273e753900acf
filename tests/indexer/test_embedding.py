import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sketch_search.indexer import EmbedderUnavailable, open_text_tower, verify
from sketch_search.indexer.building.plan import DEFAULT_CLIP_REPOSITORY, find_embedder
from sketch_search.indexer.commands import main
from tests.indexer.galleries import Collection
from tests.networks import READING, SMALL, saved_clip
from tests.pictures import SHAPES, photo

CPU = "cpu"


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_clip(tmp_path_factory.mktemp("clip") / "small-clip")


def test_an_index_is_built_by_a_local_clip_model(clip_folder: Path, collection: Collection) -> None:
    report = collection.build(embedder=f"clip:{clip_folder}")
    assert report.embedder == f"image vectors of CLIP from {clip_folder.name}, by open_clip"
    with collection.open() as index:
        assert index.manifest.embedder.kind == "clip"
        assert index.manifest.embedder.sha256 is not None
        assert index.photo_count == 12
    (path,) = collection.index.glob("g000001/embeddings.npy")
    stored = np.load(path)
    assert stored.shape == (12, 16)
    np.testing.assert_allclose(np.linalg.norm(stored.astype(np.float32), axis=1), 1, atol=1e-3)
    assert verify(collection.index) == []
    # The embedder of the live index is kept without being named again, and not loaded if nothing is new.
    assert not collection.build().changed
    assert collection.build(embedder="ret").encoded == 12


def test_a_photos_vector_is_what_open_clip_gives_whatever_comes_with_it(clip_folder: Path) -> None:
    import open_clip

    network, transform = open_clip.create_model_from_pretrained(f"local-dir:{clip_folder}")
    embedder = find_embedder(f"clip:{clip_folder}", CPU).load()
    assert embedder is not None
    pictures = [photo(SHAPES[number % len(SHAPES)], 64, number) for number in range(20)]
    inputs = [embedder.prepare(picture) for picture in pictures]
    together, some = embedder.embed(inputs), embedder.embed(inputs[:3])
    np.testing.assert_allclose(some, together[:3], atol=1e-5)
    with torch.inference_mode():
        expected = network.encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=True)
    np.testing.assert_allclose(together, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{clip}/open_clip_model.safetensors", r"name it with MODEL@"),
        ("ViT-S-32-alt@{clip}/open_clip_model.safetensors", "cannot be loaded as CLIP"),
        ("ViT-S-32-alt@{here}/weights.npz", "is not a weights file"),
        ("ViT-S-32-alt@{here}/evil.pt", "cannot be loaded as CLIP"),
        ("{here}/vision", "names an encoder that would be downloaded"),
        ("{here}/text", "names an encoder that would be downloaded"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(source: str, sentence: str, clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.npz").write_bytes(b"")
    torch.save({"state_dict": {"a": _Evil(tmp_path / "ran")}}, tmp_path / "evil.pt")
    configured(clip_folder, tmp_path / "vision", SMALL, "vision_cfg", timm_model_name="hf-hub:somebody/encoder")
    configured(clip_folder, tmp_path / "text", SMALL, "text_cfg", hf_model_name="hf-hub:somebody/encoder")
    with pytest.raises(EmbedderUnavailable, match=sentence):
        find_embedder(f"clip:{source.format(clip=clip_folder, here=tmp_path)}", CPU).load()
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


class _Evil:
    def __init__(self, file: Path) -> None:
        self._file = str(file)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self._file,)


def configured(clip: Path, folder: Path, base: Mapping[str, Any], part: str, **changes: str) -> str:
    shutil.copytree(clip, folder)
    config = {"model_cfg": {**base, part: {**base[part], **changes}}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"clip:{folder}"


def test_auto_is_clip_if_it_is_on_this_disk_else_ret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_embedder("auto", CPU).entry.kind == "ret"
    cached = tmp_path / f"models--{DEFAULT_CLIP_REPOSITORY.replace('/', '--')}"
    for file in (cached / "refs" / "main", cached / "snapshots" / "abc" / "open_clip_model.safetensors"):
        file.parent.mkdir(parents=True)
        file.write_text("abc")
    assert find_embedder("auto", CPU).entry == find_embedder("clip", CPU).entry
    assert find_embedder("ret", CPU).entry.kind == "ret"
    monkeypatch.setattr("sketch_search.indexer.building.plan.find_spec", lambda name: None)
    assert find_embedder("auto", CPU).entry.kind == "ret"


def test_without_weights_on_disk_auto_is_the_stand_in_and_says_so(
    tmp_path: Path,
    gallery: Path,
    index_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # HF_HOME and HF_HUB_OFFLINE would set these in a new process.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("SKETCH_SEARCH_WEIGHTS", str(weights))
    command = ["build", str(gallery), "--index", str(index_path), "--embedder"]
    assert main([*command, "clip"]) == 2
    assert main([*command, "auto"]) == 0
    told = capsys.readouterr()
    assert "by the checkpoint's own retrieval token" in told.out
    assert "HF_HUB_OFFLINE forbids to download it" in told.err
    assert told.err.count("\n") == 1


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_clip(tmp_path_factory.mktemp("clip") / "reading-clip", READING)


def test_a_text_becomes_what_open_clip_gives(reading: Path) -> None:
    import open_clip

    towers = open_text_tower(find_embedder(f"clip:{reading}", CPU).entry, CPU)
    network, _ = open_clip.create_model_from_pretrained(f"local-dir:{reading}")
    with torch.inference_mode():
        text = network.encode_text(open_clip.get_tokenizer(f"local-dir:{reading}")(["a dog"]), normalize=True)[0]
    scaled = text.numpy() * network.logit_scale.detach().exp().numpy()
    np.testing.assert_allclose(towers.text("a dog"), scaled, rtol=1e-5)


def test_a_changed_or_missing_model_is_refused(reading: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(reading, tmp_path / "clip")
    entry = find_embedder(f"clip:{tmp_path / 'clip'}", CPU).entry
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EmbedderUnavailable, match="are not on this disk; name them with --embedder"):
        open_text_tower(entry.model_copy(update={"spec": "clip:ViT-B-32/datacomp_s_s13m_b4k"}), CPU)
    shutil.rmtree(tmp_path / "clip")
    with pytest.raises(EmbedderUnavailable, match="is neither a file nor an open_clip model with weights"):
        open_text_tower(entry, CPU)
    saved_clip(tmp_path / "clip", READING, seed=1)
    with pytest.raises(EmbedderUnavailable, match="has changed since this index was clustered by it"):
        open_text_tower(entry, CPU)


def test_a_text_tower_without_its_tokenizer_is_refused(clip_folder: Path, reading: Path, tmp_path: Path) -> None:
    asking = configured(reading, tmp_path / "clip", READING, "text_cfg", hf_tokenizer_name="somebody/tokenizer")
    for spec, sentence in (
        (asking, "needs a tokenizer that does not come with open_clip"),
        (f"clip:{clip_folder}", "has 32 tokens, but open_clip's tokenizer has 49,408"),
        ("ret", r"this index was clustered by \[Ret\], not by CLIP"),
    ):
        with pytest.raises(EmbedderUnavailable, match=sentence):
            open_text_tower(find_embedder(spec, CPU).entry, CPU)
