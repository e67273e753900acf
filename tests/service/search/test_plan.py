from __future__ import annotations

import pytest

from model import Matcher
from model.ranking import SHORTLIST
from service.errors import BadSearch
from service.schemas import SearchQuery
from service.search.plan import NPROBE, RERANK_PLAIN, Defaults, plan_search


def test_quality_says_how_much_is_scored_and_what_experts_say_goes_before_it(matcher: Matcher) -> None:
    def planned(**asked: object) -> tuple[object, ...]:
        query = SearchQuery.model_validate(asked)
        plan = plan_search(query, matcher, Defaults(), tokens_kept=5)
        return plan.method, plan.rerank, plan.nprobe, plan.count

    assert planned(quality="fast") == ("ret", None, NPROBE, SHORTLIST)
    assert planned(quality="good") == planned() == ("rn", RERANK_PLAIN, NPROBE, RERANK_PLAIN)
    assert planned(quality="best") == ("rn", None, "all", None)
    assert planned(quality="fast", method="rn", rerank=5)[:2] == ("rn", 5)
    assert planned(quality="best", nprobe=2, rerank=5)[2] == 2
    assert planned(nprobe=2) == ("rn", None, 2, None), "all photos of counted clusters"


@pytest.mark.parametrize(
    ("asked", "tokens", "sentence"),
    [
        ({"method": "ret", "rerank": 5}, 5, "rerank counts photos for the relation network"),
        ({"diffuse": True}, 5, "no threshold for diffusion"),
        ({"method": "rn"}, 1, "this index keeps none: leave method out, or build the index with --tokens all"),
    ],
)
def test_what_checkpoint_or_index_cannot_do_is_refused(
    matcher: Matcher, asked: dict[str, object], tokens: int, sentence: str
) -> None:
    with pytest.raises(BadSearch, match=sentence):
        plan_search(SearchQuery.model_validate(asked), matcher, Defaults(), tokens_kept=tokens)
