from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from sketch_search import model
from sketch_search.indexer import BuildRequest, Index, build, open_index
from sketch_search.model import Matcher, Tokens
from sketch_search.model.engine import Method, unit
from sketch_search.model.engine.tokens import quantize
from sketch_search.model.images.files import open_image
from sketch_search.model.ranking import SHORTLIST, best_matches, estimate, promise
from sketch_search.model.search import plan_by_default, stages
from sketch_search.model.search.stages import RERANK_WITHOUT_DIFFUSION
from sketch_search.service.commands import main
from sketch_search.service.engine import SearchEngine
from sketch_search.service.errors import BadSearch
from sketch_search.service.schemas.explain import ExplainParams
from sketch_search.service.schemas.query import TunedQuery
from sketch_search.service.search.plan import plan_search
from sketch_search.service.serving.live import check_searches
from sketch_search.service.settings import NPROBE, Settings
from tests.indexer.galleries import ids_of
from tests.networks import saved_clip, tiny_checkpoint
from tests.pictures import encoded
from tests.searching import Searcher, searching
from tests.service.served import asked
from tests.service.small_gallery import CLUSTERS, PHOTOS, draw_sketch


def scores_of_files(gallery: Path, index: Index, matcher: Matcher, method: Method) -> dict[int, float]:
    """Returns every photo scored by itself, from its file, past index and search; only the ids are the index's."""
    sketch = matcher.encode(matcher.prepare(draw_sketch(), "sketch")[None], "sketch")
    scores = {}
    for cluster in range(index.cluster_count):
        for photo in ids_of(index, cluster).tolist():
            image = open_image(gallery / index.photo(photo).paths[0])
            tokens = matcher.encode(matcher.prepare(image, "photo")[None], "photo")
            # The index keeps tokens in int8, and [Ret] by itself in float16.
            if method == "ret":
                tokens = Tokens.of_ret(unit(tokens.ret).astype(np.float16).astype(np.float32))
            else:
                steps, scales = quantize(tokens.features.astype(np.float16))
                tokens = Tokens(steps * scales[..., None], tokens.positions)
            scores[photo] = float(matcher.scores(sketch, tokens, method)[0, 0])
    return scores


@pytest.mark.parametrize("method", ["rn", "ret"])
def test_searching_all_clusters_ranks_as_scoring_every_file_does(
    searcher: Searcher, gallery: Path, index: Index, matcher: Matcher, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    # So that photos are compared in several blocks.
    monkeypatch.setattr("sketch_search.model.search.photos.BLOCK", 4)
    scores = scores_of_files(gallery, index, matcher, method)
    wanted = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    outcome = searcher.find_sketch(nprobe="all", method=method)
    assert [hit.id for hit in outcome.results] == [photo for photo, _ in wanted]
    assert [hit.raw_score for hit in outcome.results] == pytest.approx([score for _, score in wanted], abs=1e-4)
    assert [hit.rank for hit in outcome.results] == list(range(1, PHOTOS + 1))
    shown = [hit.score for hit in outcome.results]
    assert (shown[0], min(shown) >= 0, shown) == (1, True, sorted(shown, reverse=True))
    assert outcome.candidates == PHOTOS
    assert outcome.pairs_scored == PHOTOS + CLUSTERS


@pytest.mark.parametrize("method", ["rn", "ret"])
def test_only_the_best_clusters_are_opened(searcher: Searcher, index: Index, matcher: Matcher, method: Method) -> None:
    sketch = matcher.encode(matcher.prepare(draw_sketch(), "sketch")[None], "sketch")
    ret = Tokens.of_ret(index.vectors.centroids)
    ranking = matcher.scores(sketch, ret if method == "ret" else index.centroids, method)[0]
    clusters = sorted(range(CLUSTERS), key=lambda c: (-float(ranking[c]), c))
    everything = searcher.find_sketch(nprobe="all", method=method)

    outcome = searcher.find_sketch(k=2, nprobe=2, method=method)
    assert [c.id for c in outcome.clusters] == clusters[:2]
    assert [c.score for c in outcome.clusters] == pytest.approx(ranking[clusters[:2]], abs=1e-4)
    assert [c.size for c in outcome.clusters] == index.cluster_sizes[clusters[:2]].tolist()
    assert outcome.candidates == index.cluster_sizes[clusters[:2]].sum()
    assert outcome.pairs_scored == CLUSTERS + outcome.candidates
    inside = [hit for hit in everything.results if hit.cluster in clusters[:2]][:2]
    assert [hit.id for hit in outcome.results] == [hit.id for hit in inside]
    assert [hit.raw_score for hit in outcome.results] == pytest.approx([hit.raw_score for hit in inside], abs=1e-4)


def test_only_the_best_by_ret_reach_the_relation_network_and_need_no_centroid(searcher: Searcher) -> None:
    let_through = {hit.id for hit in searcher.find_sketch(k=6, nprobe="all", method="ret").results}
    by_rn = searcher.find_sketch(nprobe="all", method="rn")
    thinned = searcher.find_sketch(nprobe="all", method="rn", rerank=6)
    assert [hit.id for hit in thinned.results] == [hit.id for hit in by_rn.results if hit.id in let_through]
    scores = {hit.id: hit.raw_score for hit in by_rn.results}
    assert {hit.id: hit.raw_score for hit in thinned.results} == {
        hit.id: pytest.approx(scores[hit.id], abs=1e-4) for hit in thinned.results
    }
    assert (thinned.rerank, thinned.candidates, thinned.pairs_scored) == (6, 6, CLUSTERS + 6)
    by_ret = searcher.find_sketch(method="rn", rerank=6)
    assert by_ret.results == thinned.results
    assert (by_ret.candidates, by_ret.pairs_scored) == (6, 6)
    assert {hit.cluster for hit in by_ret.results} == {cluster.id for cluster in by_ret.clusters}
    ret = searcher.find_sketch(method="ret")
    assert ret.results == searcher.find_sketch(nprobe="all", method="ret").results
    assert (ret.rerank, ret.candidates) == (None, PHOTOS)


@pytest.mark.parametrize(
    "asked", [{}, {"quality": "fast"}, {"like": [1]}, {"nprobe": 2}, {"nprobe": "all"}, {"folder": ["red"]}]
)
def test_a_search_by_a_second_level_of_clusters_answers_as_one_without(
    index: Index, matcher: Matcher, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    searcher = Searcher(index, matcher)
    plain = searcher.find_sketch(**asked)
    monkeypatch.setattr("sketch_search.model.search.candidates.MANY_CLUSTERS", 1)
    found = searcher.find_sketch(**asked)
    assert (found.results, found.clusters) == (plain.results, plain.clusters)


def test_quality_says_how_much_is_scored_and_what_experts_say_goes_before_it(matcher: Matcher) -> None:
    def planned(**asked: object) -> tuple[object, ...]:
        query = TunedQuery.model_validate(asked)
        _, plan = plan_search(query, matcher, Settings.model_construct(), tokens_kept=5)
        return plan.method, plan.rerank, plan.nprobe, plan.count

    assert planned(quality="fast") == ("ret", None, NPROBE, SHORTLIST)
    assert planned(quality="good") == planned() == ("rn", RERANK_WITHOUT_DIFFUSION, NPROBE, RERANK_WITHOUT_DIFFUSION)
    assert planned(quality="best") == ("rn", None, "all", None)
    assert planned(quality="fast", method="rn", rerank=5)[:2] == ("rn", 5)
    assert planned(quality="best", nprobe=2, rerank=5)[2] == 2
    assert planned(nprobe=2) == ("rn", None, 2, None), "all photos of counted clusters"


@pytest.mark.parametrize(
    ("things", "tokens", "regions", "method", "diffuse"),
    [
        (0, 5, 0, "ret", True),
        (1, 5, 0, "rn", True),
        (1, 1, 64, "ret", True),
        (2, 5, 64, "things", True),
        (2, 5, 0, "rn", False),
        (2, 1, 0, "ret", False),
    ],
)
def test_a_query_without_options_is_planned_as_evaluation_plans_it(
    default: Matcher, things: int, tokens: int, regions: int, method: str, diffuse: bool
) -> None:
    plan = plan_by_default(default, 20, things, tokens_kept=tokens, regions=regions)
    assert (plan.method, plan.diffuse) == (method, diffuse)
    query = TunedQuery(k=20, view="photos", like=() if things else (1,))
    settings = Settings.model_construct()
    assert plan_search(query, default, settings, things=things, tokens_kept=tokens, regions=regions)[1] == plan


def test_auto_diffuses_over_all_candidates_and_a_named_method_only_when_asked(diffusing: Searcher) -> None:
    searcher, index, matcher = diffusing, diffusing.index, diffusing.matcher
    plain = searcher.find_sketch(nprobe="all", method="rn")
    assert not plain.diffused
    hits = sorted(plain.results, key=lambda hit: hit.id)
    ids, ret = index.ids, index.vectors.of()
    scores = np.array([[hit.raw_score for hit in hits]], np.float32)
    expected = matcher.diffuse(scores, ret[ids.argsort()], "rn")[0].tolist()
    wanted = {hit.id: score for hit, score in zip(hits, expected, strict=True)}

    auto = searcher.find_sketch(nprobe="all")
    assert auto.diffused
    found = {hit.id: hit.raw_score for hit in auto.results}
    assert found == pytest.approx(wanted, abs=1e-6)
    assert [*found.values()] == sorted(found.values(), reverse=True)
    assert found != {hit.id: hit.raw_score for hit in plain.results}
    asked = searcher.find_sketch(nprobe="all", method="rn", diffuse=True)
    assert asked.results == auto.results
    assert searcher.find_sketch(nprobe="all", diffuse=False).results == plain.results
    assert searcher.search(draw_sketch(), TunedQuery(method="ret", diffuse=True)).diffused


@pytest.mark.parametrize("how", [{"quality": "good"}, {"nprobe": "all"}])
def test_unscored_photos_are_guessed(diffusing: Searcher, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    searcher, index, matcher = diffusing, diffusing.index, diffusing.matcher
    plain = searcher.find_sketch(method="rn", nprobe="all", diffuse=False)
    ids, ret = index.ids, index.vectors.of()
    order = ids.argsort()
    sketch = matcher.encode(matcher.prepare(draw_sketch(), "sketch")[None], "sketch")
    distances = matcher.ret_distances(sketch, Tokens.of_ret(ret[order]))[0]
    # Tokens are matched of the best 9 by vector alone.
    best = np.argsort(distances, kind="stable")[:9]
    matches = best_matches(sketch, index.photo_tokens(order[best]))
    hopes = promise(-distances, best, matches)
    chosen = set(ids[order][np.argsort(-hopes, kind="stable")[:5]].tolist())
    known = {hit.id: hit.raw_score for hit in plain.results if hit.id in chosen}
    scores = np.array([known.get(photo, 0.0) for photo in ids[order].tolist()], np.float32)
    likely = estimate(scores, scores > 0, -hopes, ret[order], matcher.diffusion_threshold, "rn")
    assert {
        photo: score for photo, score in zip(ids[order].tolist(), likely.tolist(), strict=True) if photo in known
    } == pytest.approx(known, abs=1e-4)
    expected = dict(zip(ids[order].tolist(), matcher.diffuse(likely[None], ret[order], "rn")[0].tolist(), strict=True))

    monkeypatch.setattr("sketch_search.model.search.candidates.MATCHED", 9)
    thinned = searcher.find_sketch(rerank=5, **how)
    assert (len(thinned.results), thinned.candidates, thinned.diffused) == (PHOTOS, PHOTOS, True)
    assert {hit.id: hit.raw_score for hit in thinned.results} == pytest.approx(expected, abs=1e-4)
    assert thinned.pairs_scored == 5 + (CLUSTERS if how == {"nprobe": "all"} else 0)


Both = tuple[Searcher, Searcher]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory, gallery: Path, diffusing: Searcher) -> Path:
    folder = tmp_path_factory.mktemp("without") / "index"
    build(folder, BuildRequest([gallery], clusters=CLUSTERS, embedder="ret", tokens="none"), diffusing.matcher)
    return folder


@pytest.fixture(scope="module")
def both(without: Path, diffusing: Searcher) -> Iterator[Both]:
    with open_index(without, diffusing.matcher) as small:
        yield Searcher(small, diffusing.matcher), diffusing


@pytest.mark.parametrize(
    "asked", [{}, {"text": "cat"}, {"like": (3,)}, {"unlike": (5,)}, {"view": "groups"}, {"nprobe": 2}]
)
def test_it_is_searched_as_one_with_tokens_by_ret(both: Both, asked: dict[str, Any]) -> None:
    small = both[0].find_sketch(**asked)
    whole = both[1].find_sketch(method="ret", diffuse=True, **asked)
    assert (small.method, small.results, small.groups) == ("ret", whole.results, whole.groups)


def test_near_duplicates_are_found_by_ret_and_the_relation_network_is_refused_with_how_to_have_it(both: Both) -> None:
    assert all(hit.copies is not None for hit in both[0].find_sketch(fold=True).results)
    with pytest.raises(BadSearch, match="which this index does not keep: leave method out, or build the index with"):
        both[0].find_sketch(method="rn")


def test_it_explains_by_the_photos_files(without: Path, diffusing: Searcher) -> None:
    engine = SearchEngine(Settings(index=without), diffusing.matcher)
    sketch = engine.prepare(encoded(draw_sketch()))
    model_info, index_info = engine.info()
    assert (model_info.methods, model_info.best_method, index_info.tokens) == (("ret",), "ret", 1)
    check_searches(engine.searcher(engine.gallery))
    answer = engine.explain(sketch, ExplainParams(photo=[5], nearest=4))
    assert (len(answer.nearest), len(answer.photos[0].nearest)) == (4, 4)
    engine.close()


def test_the_network_chooses_among_the_clusters_that_vectors_and_matches_prefer(
    searcher: Searcher, index: Index, matcher: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    sketch = matcher.encode(matcher.prepare(draw_sketch(), "sketch")[None], "sketch")
    by_vector = matcher.scores(sketch, Tokens.of_ret(index.vectors.centroids), "ret")[0]
    near = np.argsort(-by_vector, kind="stable")[:4]
    hopes = promise(by_vector[near], np.arange(4), best_matches(sketch, index.centroids[near]))
    scored = near[np.argsort(-hopes, kind="stable")[:2]]
    by_pairs = matcher.scores(sketch, index.centroids[scored], "rn")[0]
    monkeypatch.setattr(stages, "MOST_CLUSTERS_SCORED", 4)
    monkeypatch.setattr("sketch_search.model.search.stages.CLUSTERS_SCORED", 2)

    def found(nprobe: int, **asked: Any) -> Any:
        few = Searcher(index, matcher, Settings.model_construct(nprobe=nprobe))
        return few.find_sketch(k=1, method="rn", **asked)

    one = found(1)
    (opened,) = one.clusters
    assert opened.id == scored[by_pairs.argmax()]
    assert opened.score == pytest.approx(by_pairs.max(), abs=1e-4)
    assert one.pairs_scored == 2 + one.candidates
    every = found(CLUSTERS)
    assert every.pairs_scored == every.candidates


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
