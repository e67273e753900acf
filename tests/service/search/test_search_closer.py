"""Searches that ask which of two photos is closer to the one that somebody remembers, and go by the answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from indexer import Index, UnknownPhoto
from model import Matcher
from model.ranking import mean_direction
from model.ranking.closer import CERTAINTY, WIDTH
from service.errors import BadSearch
from service.schemas import SearchQuery
from service.search.searcher import Searcher
from service.search.shown.outcome import SearchOutcome
from tests.service.small_gallery import PHOTOS, draw_sketch


@pytest.fixture(scope="module")
def searcher(index: Index, matcher: Matcher) -> Searcher:
    return Searcher(index, matcher)


def find(searcher: Searcher, drawn: bool = True, **asked: Any) -> SearchOutcome:
    return searcher.search(draw_sketch() if drawn else None, SearchQuery(**{"k": PHOTOS, **asked}))


def likeness(searcher: Searcher) -> torch.Tensor:
    """(p, p) by place in ``index.ids``."""
    ret = searcher.index.all_ret()
    unit = F.normalize(F.normalize(ret, dim=1) - mean_direction(ret), dim=1)
    return unit @ unit.T


def test_photos_are_ranked_by_ret_and_by_the_answers(searcher: Searcher) -> None:
    plain = find(searcher, method="ret", diffuse=False)
    closer, farther = plain.results[7].id, plain.results[2].id
    found = find(searcher, closer=[f"{closer},{farther}", f"{closer},{farther}"])
    ids, cosine = searcher.index.ids.tolist(), likeness(searcher)
    scores = {hit.id: hit.score for hit in plain.results}
    expected = {}
    for photo, score in scores.items():
        row = cosine[ids.index(photo)]
        gap = float(row[ids.index(closer)] - row[ids.index(farther)])
        expected[photo] = score + 2 * WIDTH * float(F.logsigmoid(torch.tensor(CERTAINTY * gap)))
    assert {hit.id: hit.score for hit in found.results} == pytest.approx(expected, abs=1e-4)
    assert (found.method, found.diffused) == ("ret", False)
    ranks = [hit.score for hit in found.results]
    assert ranks == sorted(ranks, reverse=True)
    order = [hit.id for hit in found.results]
    assert order.index(closer) < order.index(farther)


def test_questions_go_on_with_new_photos_until_the_one_that_is_remembered_is_asked_about(searcher: Searcher) -> None:
    ids, cosine = searcher.index.ids.tolist(), likeness(searcher)
    remembered = find(searcher, method="ret").results[-1].id
    answers: list[str] = []
    asked: list[int] = []
    while remembered not in asked:
        question = find(searcher, ask=True, closer=answers, k=1).question
        assert question is not None
        assert not set(question) & set(asked)
        asked += question
        row = cosine[ids.index(remembered)]
        closer, farther = sorted(question, key=lambda photo: -float(row[ids.index(photo)]))
        answers.append(f"{closer},{farther}")
    # It is the last one by the sketch alone.
    assert len(asked) < PHOTOS - 1


def test_the_first_photo_asked_about_is_the_best_one_and_all_of_them_pass_the_filters(searcher: Searcher) -> None:
    found = find(searcher, ask=True)
    assert found.question is not None
    assert found.question[0] == found.results[0].id
    passing = find(searcher, ask=True, folder=["größe"])
    assert passing.question is not None
    assert set(passing.question) <= {hit.id for hit in passing.results}
    # An answer about photos that do not pass counts all the same.
    other = next(hit.id for hit in found.results if hit.id not in {hit.id for hit in passing.results})
    assert find(searcher, closer=[f"{other},{passing.question[0]}"], folder=["größe"]).candidates == passing.candidates


def test_a_question_that_nobody_can_answer_is_skipped_and_changes_nothing_else(searcher: Searcher) -> None:
    first = find(searcher, ask=True)
    assert first.question is not None
    pair = "{},{}".format(*first.question)
    second = find(searcher, ask=True, skip=[pair])
    assert second.question is not None
    assert not set(second.question) & set(first.question)
    assert second.results == first.results
    with pytest.raises(UnknownPhoto, match="99999"):
        find(searcher, ask=True, skip=["1,99999"])


def test_where_too_few_photos_are_left_nothing_is_asked(searcher: Searcher) -> None:
    every = [hit.id for hit in find(searcher, method="ret").results]
    answers = [f"{one},{other}" for one, other in zip(every[::2], every[1::2], strict=False)]
    assert find(searcher, ask=True, closer=answers).question is None
    assert find(searcher, ask=True, folder=["nowhere"]).question is None
    assert find(searcher, closer=answers[:1]).question is None


def test_answers_that_contradict_each_other_leave_the_order_nearly_as_it_was(searcher: Searcher) -> None:
    best, second, *_ = (hit.id for hit in find(searcher, method="ret", diffuse=False).results)
    found = find(searcher, closer=[f"{best},{second}", f"{second},{best}"])
    assert np.isfinite([hit.score for hit in found.results]).all()
    assert len(found.results) == PHOTOS


@pytest.mark.parametrize(
    ("drawn", "asked", "sentence"),
    [
        (True, {"ask": True, "like": [1]}, "closer and ask go with a sketch"),
        (False, {"closer": ["1,4"]}, "closer and ask find a photo for a sketch, and there is none: send one."),
        (False, {"ask": True, "kind": "photo"}, "there is none: send one."),
        (False, {"closer": ["1,4"], "like": [1]}, "there is none: send one, and leave like and text out."),
        (True, {"ask": True, "kind": "photo"}, "closer and ask go with a sketch"),
        (True, {"ask": True, "method": "rn"}, "not by method 'rn'"),
        (True, {"closer": ["1,4"], "thin": 3}, "thin goes before the relation network"),
    ],
)
def test_what_does_not_go_together_is_refused(
    searcher: Searcher, drawn: bool, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadSearch, match=sentence):
        find(searcher, drawn, **asked)


def test_an_id_that_no_photo_has_is_refused(searcher: Searcher) -> None:
    with pytest.raises(UnknownPhoto, match="99999"):
        find(searcher, closer=["1,99999"])


@pytest.mark.parametrize(
    "answer", ["", "17", "17,", "1,2,3", "1;2", "-1,2", "4,4", "04,4", "a,b", "١,٢", "1 ,2", "9" * 30 + ",1"]
)
def test_an_answer_that_is_not_two_different_ids_is_refused(answer: str) -> None:
    with pytest.raises(ValueError, match=r"closer and skip must be the ids of two photos|at most 40"):
        SearchQuery(closer=(answer,))
    with pytest.raises(ValueError, match="at most 32 times together, not 33 times"):
        SearchQuery(closer=("1,2",) * 30, skip=("1,2",) * 3)
