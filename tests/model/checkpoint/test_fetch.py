from __future__ import annotations

import hashlib
import http.server
import shlex
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save

from indexer.commands import index
from indexer.embedding import WantedEmbedder
from model.checkpoint.download import KnownCheckpoint, fetch, known_checkpoint, known_checkpoints
from model.commands import main
from model.commands import model as commands
from model.engine import PRESETS
from model.errors import ModelError
from model.network import DEFAULT_CLIP
from model.network.zse import read_backbone
from model.terminal import BAD_INPUT
from tests.command_lines import parse
from tests.patience import join

CPU = "cpu"


@dataclass
class Hub:
    """Stands in for the Hugging Face Hub, and counts how often each of its files was sent."""

    files: dict[str, bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on loopback, and a cache of our own."""
    served = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *arguments: object) -> None:
            pass

        def _answer(self, with_body: bool) -> None:
            name = self.path.lstrip("/").replace("/resolve/main/", "/")
            content = served.files.get(name)
            self.send_response(404 if content is None else 200)
            # A client that keeps its connection would keep this thread, and its socket, to the end of all tests.
            self.send_header("Connection", "close")
            self.send_header("X-Repo-Commit", hashlib.sha1(content or b"").hexdigest())
            self.send_header("Content-Length", str(len(content or b"")))
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            else:
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.end_headers()
            if with_body and content is not None:
                served.sent.append(name)
                self.wfile.write(content)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    # HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE are read once, when the library is imported.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    try:
        yield served
    finally:
        server.shutdown()
        join(thread)
        server.server_close()


def entry(**changes: object) -> KnownCheckpoint:
    """A checkpoint of two files, the second of which is taken only where there is no first."""
    fields: dict[str, object] = {
        "name": "small",
        "kind": "backbone",
        "purpose": "tests",
        "licence": "none",
        "source": "here",
        "repository": "somebody/small",
        "files": ("model.safetensors", "model.bin"),
        "use": "look at FILE",
        "parameters": 1,
    }
    return KnownCheckpoint.model_validate(fields | changes)


def test_the_list_agrees_with_the_libraries_that_load_its_files() -> None:
    import open_clip

    with torch.device("meta"):
        for known in known_checkpoints():
            if known.kind == "clip":
                network, _, tag = known.name.partition("/")
                assert open_clip.get_pretrained_cfg(network, tag)["hf_hub"] == f"{known.repository}/"
            elif known.kind == "backbone":
                settings = timm.models.get_pretrained_cfg(known.name)
                assert settings is not None
                assert settings.hf_hub_id == known.repository
                assert settings.license == known.licence.lower()
                assert sum(p.numel() for p in timm.create_model(known.name).parameters()) == known.parameters
            else:
                assert known.repository is None
    names = [known.name for known in known_checkpoints()]
    assert len(set(names)) == len(names)
    assert DEFAULT_CLIP in names


@pytest.mark.parametrize("known", known_checkpoints(), ids=lambda known: known.name)
def test_the_command_that_goes_with_a_checkpoint_can_be_run(known: KnownCheckpoint) -> None:
    program, module, *arguments = shlex.split(known.command(Path("a b.safetensors"), cached=True))
    assert program == "sketch-search"
    if module == "index":
        parse(index, arguments)
        *_, embedder = shlex.split(known.command(Path("a b.safetensors"), cached=False))
        assert known.command(Path("a b.safetensors"), cached=False).startswith("sketch-search index build ")
        assert embedder == f"clip:{known.name.split('/')[0]}@a b.safetensors"
    else:
        assert module == "model"
        asked = parse(commands, arguments).params
        if known.kind == "backbone":
            assert asked["backbone"] == "a b.safetensors"
            width = {"tiny": 192, "small": 384, "base": 768}[known.name.split("_")[1]]
            assert PRESETS[asked["kind"]].width == width


def test_a_file_is_fetched_once(hub: Hub) -> None:
    hub.files["somebody/small/model.bin"] = b"weights"
    for _ in range(2):
        path, digest = fetch(entry())
        assert (path.read_bytes(), digest) == (b"weights", hashlib.sha256(b"weights").hexdigest())
    assert hub.sent == ["somebody/small/model.bin"]


def test_a_file_without_the_known_hash_does_not_stay_in_the_cache(hub: Hub, tmp_path: Path) -> None:
    known = hashlib.sha256(b"weights").hexdigest()
    hub.files["somebody/small/model.safetensors"] = b"others!"
    with pytest.raises(ModelError, match=r"should have .* so it was deleted"):
        fetch(entry(sha256=known))
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.is_file() and path.read_bytes() == b"others!"]
    hub.files["somebody/small/model.safetensors"] = b"weights"
    assert fetch(entry(sha256=known))[1] == known


def test_what_cannot_be_downloaded_is_a_sentence_that_says_what_to_do(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"has no file model\.safetensors or model\.bin any more"):
        fetch(entry())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="does not answer; connect to the network"):
        fetch(entry())
    with pytest.raises(ModelError, match=r"could not be downloaded \(.*\); try again"):
        fetch(entry(repository="no/such/place"))
    with pytest.raises(
        ModelError, match=r"by hand: best_checkpoint\.pth, linked from .* Then: sketch-search model convert"
    ):
        fetch(known_checkpoint("zse-sbir-sketchy"))
    with pytest.raises(ModelError, match="choose one of ViT-B-32"):
        known_checkpoint("ViT-B-33")


def test_the_indexer_clusters_by_the_clip_that_was_fetched(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = known_checkpoint(DEFAULT_CLIP)
    hub.files[f"{known.repository}/{known.files[0]}"] = b"weights"
    assert main(["fetch", DEFAULT_CLIP]) == 0
    printed = capsys.readouterr().out
    assert hashlib.sha256(b"weights").hexdigest() in printed
    chosen = WantedEmbedder("clip").find(CPU).entry
    assert (chosen.kind, chosen.name) == ("clip", f"CLIP {DEFAULT_CLIP}")
    assert main(["fetch", DEFAULT_CLIP, "--out", str(tmp_path / "elsewhere")]) == 0
    *_, spec = shlex.split(capsys.readouterr().out)
    assert WantedEmbedder(spec).find(CPU).entry.sha256 == chosen.sha256


def test_a_network_starts_from_the_backbone_that_was_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    tag = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    network = timm.create_model(tag)
    hub.files[f"timm/{tag}/model.safetensors"] = save(network.state_dict())
    path, _ = fetch(known_checkpoint(tag))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for source in (tag, str(path)):
        assert torch.equal(read_backbone(source)["cls_token"], network.state_dict()["cls_token"])


def test_the_list_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "--list"]) == 0
    printed = capsys.readouterr().out
    for known in known_checkpoints():
        assert known.name in printed
        assert known.use in printed
    assert main(["fetch"]) == BAD_INPUT
