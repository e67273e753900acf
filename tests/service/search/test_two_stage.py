"""The two-stage report's system, by the query and by the server's setting, over HTTP and by the command line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from sketch_search import model
from sketch_search.indexer import BuildRequest, build, open_index
from sketch_search.model import Matcher
from sketch_search.service.commands import main
from sketch_search.service.errors import BadSearch
from sketch_search.service.schemas.query import TunedQuery
from sketch_search.service.search.plan import plan_search
from sketch_search.service.settings import Settings
from tests.indexer.galleries import ids_of
from tests.networks import saved_clip, tiny_checkpoint
from tests.pictures import encoded
from tests.searching import Searcher, searching
from tests.service.served import asked
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_sketch

SYSTEM: dict[str, Any] = {"system": "two-stage"}


@pytest.fixture(scope="module")
def by_clip(tmp_path_factory: pytest.TempPathFactory, gallery: Path, default: Matcher) -> Path:
    """Builds an index by the default network, clustered by a CLIP of random weights."""
    folder = tmp_path_factory.mktemp("by-clip")
    clip = f"clip:{saved_clip(folder / 'clip')}"
    build(folder / "index", BuildRequest([gallery], clusters=CLUSTERS, embedder=clip), default)
    return folder / "index"


@pytest.fixture(scope="module")
def http(settings: Settings, by_clip: Path) -> Iterator[httpx.Client]:
    with asked(settings, index=by_clip, weights=None, system="two-stage") as connection:
        yield connection


def logit(score: Any) -> Any:
    return np.log(score) - np.log1p(-np.asarray(score, np.float64))


def test_pairs_order_centroids_then_photos_of_the_best(by_clip: Path, default: Matcher, http: httpx.Client) -> None:
    drawn = encoded(draw_sketch())
    sketch = default.encode(default.prepare(default.open(drawn, "sketch"), "sketch")[None], "sketch", variants=1)

    def related(tokens: model.Tokens) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Asks the network pair by pair, past everything that a checkpoint knows beside it."""
        return np.array([default.engine.relate(sketch, tokens[[row]])[0] for row in range(len(tokens))])

    with open_index(by_clip, default) as index:
        assert index.manifest.embedder.kind == "clip"
        of_clusters = related(index.centroids)
        best = np.argsort(-of_clusters)[:2]
        photos = np.concatenate([ids_of(index, cluster) for cluster in best.tolist()])
        rows = np.flatnonzero(np.isin(index.ids, photos))
        of_photos = related(index.photo_tokens(rows))
        in_order = index.ids[rows][np.argsort(-of_photos)]
        # What the checkpoint knows beside the network moves its scores, and not these.
        assert np.abs(default.relation_logits(sketch, index.centroids)[0] - of_clusters).max() > 0.01
    answer = http.post("/search", content=drawn, params={"nprobe": 2, "k": 3}).json()
    assert [cluster["id"] for cluster in answer["clusters"]] == best.tolist()
    assert logit([cluster["score"] for cluster in answer["clusters"]]) == pytest.approx(of_clusters[best], abs=1e-3)
    assert [photo["id"] for photo in answer["results"]] == in_order[:3].tolist()
    found = [photo["raw_score"] for photo in answer["results"]]
    assert logit(found) == pytest.approx(np.sort(of_photos)[::-1][:3], abs=1e-3)
    assert (answer["candidates"], answer["pairs_scored"]) == (len(photos), CLUSTERS + len(photos))
    assert (answer["system"], answer["diffused"], answer["embedder"]) == ("two-stage", False, "CLIP from clip")


def test_the_best_cluster_is_opened_and_more_until_they_hold_the_results(http: httpx.Client) -> None:
    drawn = encoded(draw_sketch())
    few = http.post("/search", content=drawn, params={"k": 1}).json()
    assert len(few["clusters"]) == 1
    every = http.post("/search", content=drawn, params={"k": PHOTOS - 1}).json()
    assert len(every["results"]) == PHOTOS - 1
    sizes = [cluster["size"] for cluster in every["clusters"]]
    assert sum(sizes[:-1]) < PHOTOS - 1 <= sum(sizes)


def test_options_that_the_two_stage_system_lacks_are_refused_with_it(http: httpx.Client) -> None:
    drawn = encoded(draw_sketch())
    assert http.get("/info").json()["defaults"]["system"] == "two-stage"
    refused = http.post("/search", content=drawn, params={**SYSTEM, "like": 3, "quality": "fast"})
    assert refused.status_code == 422
    sentence = "system=two-stage scores photos by the sketch alone: leave out quality, like."
    assert refused.json()["error"]["message"] == sentence
    for own in ({"like": 3}, {"quality": "fast"}, {"text": "cat"}, {"system": "default"}):
        assert http.post("/search", content=drawn, params=own).json()["system"] == "default"
    assert http.post("/search", content=drawn, params={"method": "rn", "fold": True}).json()["system"] == "two-stage"


@pytest.mark.parametrize("released", [False, True])
def test_zse_sbirs_own_networks_and_released_ones_search_by_it(gallery: Path, tmp_path: Path, released: bool) -> None:
    flags = ("preprocessing", "tokenizer_average", "value_from_query", "kernel_view", "cross_norm")
    way: dict[str, Any] = {f"released_{flag}": released for flag in flags}
    with searching(gallery, tmp_path, relation="kernel-mlp", relation_ret=False, **way) as searcher:
        found = searcher.find_sketch(**SYSTEM, k=2, nprobe=2)
        plain = searcher.find_sketch(method="rn", diffuse=False, variants=1, k=2, nprobe=2)
        assert found.results == plain.results
        assert found.clusters == plain.clusters
        assert found.pairs_scored == CLUSTERS + found.candidates


def test_an_index_remembers_the_system_that_it_was_built_for(
    gallery: Path,
    settings: Settings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    index, zse = tmp_path / "index", model.load("zse")
    first = build(index, BuildRequest([gallery], system="two-stage"), zse)
    assert first.system == "two-stage"
    assert first.clusters == -(-PHOTOS // 4), "125, or four photos each"
    build(index, BuildRequest([gallery], clusters=CLUSTERS), zse)
    drawn = encoded(draw_sketch())
    sketch = zse.encode(zse.prepare(zse.open(drawn, "sketch"), "sketch")[None], "sketch", variants=1)
    with open_index(index, zse) as opened:
        assert opened.manifest.system == "two-stage"
        # The features of each cluster lie together.
        rows = np.arange(PHOTOS)
        assert (opened.reading_order(rows) == rows).all()
        related = zse.engine.relate(sketch, opened.centroids)
    caplog.set_level("INFO", "sketch_search")
    with asked(settings, index=index, weights=None) as http:
        answer = http.post("/search", content=drawn, params={"k": 3}).json()
        about = http.get("/info").json()
    assert "searched with zse by the two-stage system" in caplog.text
    assert (about["defaults"]["quality"], about["defaults"]["nprobe"]) == ("best", 1)
    main(["index", "info", "--index", str(index)])
    assert "\nsystem:      two-stage\n" in capsys.readouterr().out
    assert (about["index"]["system"], about["defaults"]["system"], answer["system"]) == ("two-stage",) * 3
    assert answer["model"] == about["model"]["name"] == "zse"
    assert answer["clusters"][0]["id"] == int(related.argmax())
    assert answer["pairs_scored"] == CLUSTERS + answer["candidates"]
    assert answer["candidates"] == sum(cluster["size"] for cluster in answer["clusters"])


def test_a_build_goes_on_with_the_network_and_the_system_of_the_index(
    gallery: Path, tmp_path: Path, default: Matcher, capsys: pytest.CaptureFixture[str]
) -> None:
    index = ("--index", str(tmp_path / "index"))
    assert main(["index", "build", str(gallery), "--system", "two-stage", "--weights", "default", *index]) == 0
    assert main(["index", "build", *index]) == 0
    assert "encoded now: 0\n" in capsys.readouterr().out
    with open_index(tmp_path / "index", default) as opened:
        assert opened.manifest.system == "two-stage"
    assert main(["index", "build", "--tokens", "none", *index]) == 2
    assert "compares tokens; add --tokens all, or --system default" in capsys.readouterr().err


def test_all_centroids_are_scored_however_many_there_are(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sketch_search.model.search.stages.MOST_CLUSTERS_SCORED", 2)
    limited = searcher.find_sketch(nprobe=1, k=1)
    assert limited.pairs_scored == 2 + limited.candidates
    found = searcher.find_sketch(**SYSTEM, k=1)
    assert found.pairs_scored == CLUSTERS + found.candidates


def test_a_checkpoint_without_a_relation_network_does_not_have_this_system(tmp_path: Path) -> None:
    alone = model.load(tiny_checkpoint(tmp_path / "ret.safetensors", methods=("ret",), best_method="ret"))
    with pytest.raises(BadSearch, match="This checkpoint has no method 'rn'"):
        plan_search(TunedQuery(system="two-stage"), alone, Settings.model_construct(), tokens_kept=5)
