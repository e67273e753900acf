"""The plan of a search: what a query leaves open is filled in, what the checkpoint cannot do is refused."""

from __future__ import annotations

import pytest

import model
from model import Matcher
from model.ranking import SHORTLIST
from service.errors import BadSearch
from service.schemas import SearchQuery
from service.search import plan as planning
from service.search.plan import NPROBE, RERANK, RERANK_PLAIN, Defaults, Plan, default_rerank, methods_of
from tests.networks import tiny_checkpoint

DEFAULTS = Defaults(k=7, nprobe=3)


def plan_search(query: SearchQuery, matcher: Matcher, defaults: Defaults, tokens_kept: int = 5) -> Plan:
    return planning.plan_search(query, matcher, defaults, tokens_kept=tokens_kept)


@pytest.fixture(scope="module")
def diffusing(tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    return model.load(tiny_checkpoint(tmp_path_factory.mktemp("diffusing") / "tiny.safetensors", diffusion=0.2))


def test_what_a_query_leaves_open_comes_from_the_defaults_and_the_checkpoint(matcher: Matcher) -> None:
    plan = plan_search(SearchQuery(), matcher, DEFAULTS)
    assert (plan.k, plan.quality, plan.nprobe, plan.by_pairs) == (7, "good", 3, False)
    assert (plan.method, plan.diffuse) == (matcher.best_method, False)
    assert plan_search(SearchQuery(), matcher, Defaults()).nprobe == NPROBE


def test_what_a_query_says_goes_before_the_defaults(matcher: Matcher) -> None:
    query = SearchQuery(k=2, offset=5, method="rn", rerank=9, budget_ms=50)
    plan = plan_search(query, matcher, DEFAULTS)
    assert (plan.k, plan.query, plan.results) == (2, query, 7)
    assert (plan.method, plan.rerank) == ("rn", 9)


def test_quality_says_how_much_is_scored(matcher: Matcher) -> None:
    fast, good, best = (plan_search(SearchQuery(quality=one), matcher, Defaults()) for one in ("fast", "good", "best"))
    assert (fast.method, fast.rerank, fast.nprobe, fast.count) == ("ret", None, NPROBE, SHORTLIST)
    assert (good.method, good.rerank, good.nprobe, good.count) == ("rn", RERANK_PLAIN, NPROBE, RERANK_PLAIN)
    assert (best.method, best.rerank, best.nprobe, best.count) == ("rn", None, "all", None)
    assert plan_search(SearchQuery(), matcher, Defaults(quality="fast")).method == "ret"
    # What experts say goes before it.
    named = plan_search(SearchQuery(quality="fast", method="rn", rerank=5), matcher, Defaults())
    assert (named.method, named.rerank) == ("rn", 5)
    assert plan_search(SearchQuery(quality="best", nprobe=2, rerank=5), matcher, Defaults()).nprobe == 2


def test_who_counts_clusters_has_the_method_choose_them_and_all_of_their_photos_scored(matcher: Matcher) -> None:
    for nprobe in (2, "all"):
        plan = plan_search(SearchQuery.model_validate({"nprobe": nprobe}), matcher, Defaults())
        assert (plan.nprobe, plan.by_pairs, plan.rerank, plan.count) == (nprobe, True, None, None)


def test_by_ret_alone_nothing_is_reranked(matcher: Matcher) -> None:
    assert plan_search(SearchQuery(method="ret"), matcher, DEFAULTS).rerank is None
    with pytest.raises(BadSearch, match="rerank counts photos for the relation network"):
        plan_search(SearchQuery(method="ret", rerank=5), matcher, DEFAULTS)


def test_only_auto_diffuses_unasked_and_only_where_the_checkpoint_knows_how(
    matcher: Matcher, diffusing: Matcher
) -> None:
    assert plan_search(SearchQuery(), diffusing, DEFAULTS).diffuse
    assert not plan_search(SearchQuery(method="rn"), diffusing, DEFAULTS).diffuse
    assert plan_search(SearchQuery(method="rn", diffuse=True), diffusing, DEFAULTS).diffuse
    assert not plan_search(SearchQuery(diffuse=False), diffusing, DEFAULTS).diffuse
    with pytest.raises(BadSearch, match="no threshold for diffusion"):
        plan_search(SearchQuery(diffuse=True), matcher, DEFAULTS)


@pytest.mark.parametrize(
    ("results", "diffuse", "wanted"),
    [
        (20, True, RERANK),
        (SHORTLIST, True, RERANK),
        (SHORTLIST + 1, True, SHORTLIST + 1),
        (20, False, RERANK_PLAIN),
        (RERANK_PLAIN + 8, False, RERANK_PLAIN + 8),
    ],
)
def test_as_many_photos_are_scored_as_the_page_takes(results: int, diffuse: bool, wanted: int) -> None:
    assert default_rerank(results, diffuse=diffuse) == wanted


def test_with_diffusion_more_photos_have_a_place_than_are_scored(diffusing: Matcher) -> None:
    assert plan_search(SearchQuery(rerank=5), diffusing, DEFAULTS).count == SHORTLIST
    assert plan_search(SearchQuery(rerank=5, diffuse=False), diffusing, DEFAULTS).count == 5


def test_an_index_without_tokens_is_searched_by_vectors_alone(matcher: Matcher) -> None:
    assert methods_of(matcher, 1) == ("ret",)
    for query in (SearchQuery(), SearchQuery(quality="best"), SearchQuery(nprobe=2)):
        plan = plan_search(query, matcher, DEFAULTS, tokens_kept=1)
        assert (plan.method, plan.rerank) == ("ret", None)
    with pytest.raises(
        BadSearch, match="this index keeps none: leave method out, or build the index with --tokens all"
    ):
        plan_search(SearchQuery(method="rn"), matcher, DEFAULTS, tokens_kept=1)
