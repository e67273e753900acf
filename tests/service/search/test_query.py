"""The one object that says what is asked of a search, checked once when it is made."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from service.schemas import SearchQuery, describe_problems


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"k": 0}, "k must be at least 1, not 0"),
        ({"offset": -1}, "offset must be at least 0, not -1"),
        ({"nprobe": 0}, "nprobe must be at least 1 or 'all', not 0"),
        ({"rerank": 0}, "rerank must be at least 1, not 0"),
        ({"budget_ms": 0}, "budget_ms must be more than 0, not 0"),
        ({"quality": "fine"}, "quality must be 'fast', 'good' or 'best', not 'fine'"),
        ({"select": "ret"}, "There is no parameter select any more: the best clusters are searched"),
        ({"thin": 5}, "There is no parameter thin any more: say with rerank how many photos"),
        # The name within the program is none outside of it.
        (
            {"reranked": 5},
            "There is no parameter 'reranked'; there are k, offset, quality, nprobe, method, rerank, diff",
        ),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_the_name_it_was_given(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SearchQuery(**wrong)
    assert describe_problems(refused.value.errors()).startswith(sentence)


def test_a_query_cannot_be_changed_once_it_is_checked() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SearchQuery(k=3).k = 0
