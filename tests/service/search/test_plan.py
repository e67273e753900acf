"""The plan of a search: what a query leaves open is filled in, what the checkpoint cannot do is refused."""

from __future__ import annotations

import pytest

import model
from model import Matcher
from model.ranking import SHORTLIST
from service.errors import BadSearch
from service.schemas import SearchQuery
from service.search.plan import RERANK, RERANK_PLAIN, Defaults, default_rerank, plan_search
from tests.networks import tiny_checkpoint

DEFAULTS = Defaults(k=7, first_stage="clusters", nprobe=3)


@pytest.fixture(scope="module")
def diffusing(tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    return model.load(tiny_checkpoint(tmp_path_factory.mktemp("diffusing") / "tiny.safetensors", diffusion=0.2))


def test_what_a_query_leaves_open_comes_from_the_defaults_and_the_checkpoint(matcher: Matcher) -> None:
    plan = plan_search(SearchQuery(), matcher, DEFAULTS)
    assert (plan.k, plan.offset, plan.first_stage, plan.nprobe) == (7, 0, "clusters", 3)
    assert (plan.method, plan.diffuse, plan.rerank, plan.budget_ms) == (matcher.best_method, False, None, None)


def test_what_a_query_says_goes_before_the_defaults(matcher: Matcher) -> None:
    query = SearchQuery(k=2, offset=5, select="ret", method="rn", thin=9, budget_ms=50)
    plan = plan_search(query, matcher, DEFAULTS)
    assert (plan.k, plan.offset, plan.results, plan.first_stage) == (2, 5, 7, "ret")
    assert (plan.method, plan.rerank, plan.budget_ms) == ("rn", 9, 50)


def test_who_counts_clusters_wants_them_to_choose(matcher: Matcher) -> None:
    by_ret = Defaults(first_stage="ret")
    assert plan_search(SearchQuery(), matcher, by_ret).first_stage == "ret"
    plan = plan_search(SearchQuery(nprobe="all"), matcher, by_ret)
    assert (plan.first_stage, plan.nprobe, plan.rerank) == ("clusters", "all", None)


def test_by_ret_alone_nothing_is_reranked(matcher: Matcher) -> None:
    assert plan_search(SearchQuery(select="ret", method="ret"), matcher, DEFAULTS).rerank is None
    with pytest.raises(BadSearch, match="thin goes before the relation network"):
        plan_search(SearchQuery(method="ret", thin=5), matcher, DEFAULTS)


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


def test_a_shortlist_is_made_only_for_the_diffusion(diffusing: Matcher) -> None:
    assert plan_search(SearchQuery(), diffusing, DEFAULTS).estimated == SHORTLIST
    assert plan_search(SearchQuery(diffuse=False), diffusing, DEFAULTS).estimated == 0
