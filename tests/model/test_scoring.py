"""The benchmark of scoring and encoding, on tiny networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from model.matcher import Matcher
from model.network.zse import Network
from tests.benchmarks.circumstances import Call
from tests.benchmarks.released import released_logits, released_tokens
from tests.benchmarks.scoring import CHUNKS, Result, measure, table
from tests.benchmarks.ways import compiled_way, in_precision, random_tokens
from tests.networks import tiny_network


@pytest.fixture(scope="module")
def released() -> Network:
    return tiny_network(
        seed=4,
        relation="kernel-mlp",
        relation_ret=False,
        keep_sketch=1.0,
        keep_photo=1.0,
        released_tokenizer_average=True,
        released_value_from_query=True,
        released_kernel_view=True,
        released_cross_norm=True,
    )


def test_the_released_computation_gives_what_the_matcher_does(released: Network) -> None:
    sketch, photos = random_tokens(released, 1, 0), random_tokens(released, 16, 1)
    logits = released_logits(released, sketch.features, photos.features)
    assert logits.std() > 1e-3, "the pairs must differ for the comparison to mean anything"
    for chunk in (1, 5, 16, 32):
        matcher = Matcher(released, "0" * 64, chunk=chunk)
        torch.testing.assert_close(matcher.relation_logits(sketch, photos)[0], logits, atol=1e-5, rtol=1e-5)


def test_the_released_encoder_gives_what_the_matcher_does(released: Network) -> None:
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = Matcher(released, "0" * 64).encode(images, "photo").features
    torch.testing.assert_close(released_tokens(released, images), tokens, atol=1e-5, rtol=1e-5)


def test_every_way_is_measured_and_written_down(released: Network, tmp_path: Path) -> None:
    document = tmp_path / "scoring.json"
    call = Call("python -m tests.benchmarks.scoring", quick=True)
    result = measure(document, released, tiny_network(methods=("rn",)), nn.Flatten(), call)
    written = Result.model_validate_json(document.read_text(encoding="utf-8"))
    assert written == result
    assert written.finished
    assert (written.circumstances.torch, written.circumstances.quick) == (torch.__version__, True)
    assert written.peak_mib is None
    assert [moved.dtype for moved in written.differences] == ["bfloat16"]
    assert 0 < written.differences[0].score < 0.05
    fastest = written.circumstances.dtype
    rows = [(row.part, row.name, row.dtype) for row in written.rows]
    assert rows == [
        ("score", "released computation", "float32"),
        ("score", "its shape in this engine", "float32"),
        ("score", "its shape in this engine", "bfloat16"),
        ("score", "tiny-random", "float32"),
        ("score", "tiny-random", "bfloat16"),
        ("score", "tiny-random, photos projected before", fastest),
        ("encode", "released encoder", "float32"),
        ("encode", "tiny-random", "float32"),
        ("encode", "CLIP ViT-B/32", "float32"),
    ]
    assert all(row.rounds == 2 and row.microseconds > 0 for row in written.rows)
    assert written.rows[0].ratio == written.rows[6].ratio == 1
    assert [chunk.pairs for chunk in written.chunks] == list(CHUNKS)
    assert all(chunk.microseconds > 0 for chunk in written.chunks)
    assert all(name in table(result) for _, name, _ in rows)


def test_a_run_that_was_stopped_is_known_by_its_document(
    released: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tests.benchmarks.scoring.chunk_times", stop)
    document = tmp_path / "scoring.json"
    with pytest.raises(KeyboardInterrupt):
        measure(document, released, tiny_network(methods=("rn",)), nn.Flatten(), Call("", quick=True))
    written = Result.model_validate_json(document.read_text(encoding="utf-8"))
    assert not written.finished
    assert len(written.rows) == 9


@torch.inference_mode()
def test_a_compiled_way_is_one_more_row_and_no_error_where_nothing_can_be_compiled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    network = tiny_network(methods=("rn",))
    sketch, photos = random_tokens(network, 1, 0), random_tokens(network, 32, 1)
    plain = in_precision(network, torch.float32)
    # Dynamo's part of it alone: to compile takes long.
    matcher = in_precision(network, torch.float32)
    way = compiled_way("compiled", matcher, sketch, photos, backend="eager")
    assert way is not None
    assert (way.name, way.dtype, way.count) == ("compiled", "float32", 32)
    assert torch.equal(matcher.relation_logits(sketch, photos), plain.relation_logits(sketch, photos))
    assert matcher.network.relate != plain.network.relate
    assert compiled_way("broken", plain, sketch, photos, backend=_broken) is None
    assert "broken: left out: " in capsys.readouterr().err


def _broken(*_: object) -> None:
    raise OSError("no compiler")
