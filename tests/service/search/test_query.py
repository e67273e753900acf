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
        ({"thin": 0}, "thin must be at least 1, not 0"),
        ({"budget_ms": 0}, "budget_ms must be more than 0, not 0"),
        ({"select": "words"}, "select must be 'clusters' or 'ret', not 'words'"),
        ({"select": "ret", "nprobe": 3}, "nprobe counts clusters, which select=ret does not choose by: leave one"),
        # The name within the program is none outside of it.
        ({"rerank": 5}, "There is no parameter 'rerank'; there are k, offset, select, nprobe, method, thin, diffuse"),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_the_name_it_was_given(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SearchQuery(**wrong)
    assert describe_problems(refused.value.errors()).startswith(sentence)


def test_a_query_cannot_be_changed_once_it_is_checked() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SearchQuery(k=3).k = 0


def test_the_names_of_users_are_plain_words_within() -> None:
    query = SearchQuery(select="clusters", thin=5)
    assert (query.first_stage, query.rerank) == ("clusters", 5)
