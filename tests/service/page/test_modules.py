from typing import Any

import pytest

from tests.browser import Browser, run
from tests.requirements import needs_browser
from tests.service.looking import forgetful
from tests.service.served import Served

pytestmark = needs_browser

# Cosines of things, whether nobody knows them, and what is said.
FOUND = [(0.8, True, "matches well"), (0.6, False, "matches partly"), (0.6, True, "perhaps here")]
FOUND += [(0.4, False, "perhaps here"), (0.4, True, "not clear where")]
VALUES = [0.1, 0.5, 0.2, 0.0, 0.2]
COMPARED = {
    "matches": [{"sketch_cell": s, "photo_cell": p, "cosine": c} for s, p, c in ((0, 7, 0.9), (3, 2, 0.8), (5, 7, 0.6))]
}
# The groups before and after, whether they stay in their places, and those: each with the one it was before, or -1.
PLACES: list[tuple[list[list[int]], list[list[int]], bool, list[list[int]]]] = [
    # Without anything before: in their own order.
    ([], [[1, 10], [2, 20]], True, [[1, -1], [2, -1]]),
    # Both stay where they were, whatever their order is now; a new one comes into the free place.
    ([[1, 10], [2, 20], [3, 30]], [[1, 30], [2, 40], [3, 10]], True, [[3, 0], [2, -1], [1, 2]]),
    ([[1, 10], [2, 20], [3, 30]], [[1, 30], [2, 40], [3, 10]], False, [[1, 2], [2, -1], [3, 0]]),
    # It is the same group if its best photo was or is one of the others.
    ([[1, 10, 11], [2, 20]], [[1, 50], [2, 11, 10]], True, [[2, 0], [1, -1]]),
    ([[1, 10], [2, 20]], [[1, 50], [2, 51, 10]], True, [[2, 0], [1, -1]]),
    # One that fell apart goes on as the part with its best photo.
    ([[1, 10, 11]], [[1, 11], [2, 10]], True, [[2, 0], [1, -1]]),
    # A place that is not there any more is not kept.
    ([[1, 10], [2, 20], [3, 30]], [[1, 30]], True, [[1, 2]]),
]


TAKEN = {"1965": "1965", "1965-07": "July 1965", "1965-07-04": "4 July 1965"}
FACTS, SIZE = {"width": 9, "height": 6, "bytes": 900, "boxes": []}, ["Size", "9 \u00d7 6 pixels, 1\u00a0kB"]


def seen(guess: str | None, fit: bool | None = None, *, word: str | None = None) -> dict[str, Any]:
    return {"guess": guess and {"word": guess}, "fits": fit, "word": word}


COW_DENIED = "Not sure that anything here shows “cow”. These are the closest."


# How many lines are drawn, the things of the answer, as (strokes, the second half of them); what is done then; and what
# the next search says of each line: the thing that it is in, and the number it was told.
THINGS: list[tuple[int, list[tuple[list[int], list[int]]], list[list[Any]], list[list[int | None]]]] = [
    (3, [], [], [[0, None]] * 3),
    (3, [([0, 2], []), ([1], [])], [], [[0, None], [1, None], [0, None]]),
    # What was drawn since the answer belongs to the line before it.
    (4, [([0], []), ([1, 2], [])], [], [[0, None], [1, None], [1, None], [1, None]]),
    # What a person says is told to the server; the rest stays as the network has it.
    (3, [([0], []), ([1], []), ([2], [])], [["join", 0, 1]], [[0, 0], [0, 0], [1, None]]),
    (3, [([0, 1], [1]), ([2], [])], [["split", 0]], [[0, 0], [1, 1], [2, None]]),
    (3, [([0], []), ([1], []), ([2], [])], [["join", 0, 1], ["join", 0, 2]], [[0, 1]] * 3),
    # What stays as it is is told, too: so the network does not divide it anew.
    (3, [([0, 1], [1]), ([2], [])], [["settle", 0], ["split", 0]], [[0, 2], [1, 3], [2, 1]]),
    (3, [([0], []), ([1], []), ([2], [])], [["settle", 0], ["join", 0, 1], ["settle", 0]], [[0, 3], [0, 3], [1, 2]]),
    # A thing that the network has no halves of stays as it is.
    (2, [([0, 1], [])], [["split", 0]], [[0, None], [0, None]]),
]
# By what is promised: the script, and calls of its function with what they return.
PROMISES: dict[str, tuple[str, list[tuple[list[Any], Any]]]] = {
    "an older search is given up and never shown": ("older_search", [([], [[True, True, False], ["third"]])]),
    "a busy server is asked again when it said": ("busy_server", [([], ["busy", "found"])]),
    "groups have places": ("places", [([before, after, stay], places) for before, after, stay, places in PLACES]),
    "lines make things": (
        "things_of",
        [([count, answer, actions], things) for count, answer, actions, things in THINGS],
    ),
    "the line runs around the fewest cells with the share wanted": (
        "heaviest",
        [([VALUES, 0.5], [1]), ([VALUES, 0.6], [1, 2]), ([VALUES, 0.9], [1, 2, 4]), ([VALUES, 1.0], [0, 1, 2, 4])],
    ),
    "the best matches of a part are those of its tokens": ("best_matches", [([COMPARED, [0, 5, 9]], [[7, 0.9]])]),
    # Of a ring of cells, at two edges of a grid of 4, its outer border.
    "the outline of a thing goes around all of its cells": (
        "outline_box",
        [([[0, 1, 2, 4, 6, 8, 9, 10], 4], [0, 0, 0.75, 0.75])],
    ),
    "matches are as strong as was measured": (
        "words",
        [(["strength", cosine], said) for cosine, said in ((0.41, "strong"), (0.39, "fair"), (0.24, "weak"))],
    ),
    "of several things, one that nobody knows is found only where it matches well": (
        "words",
        [(["foundThing", {"cosine": cosine, "unsure": unsure}], said) for cosine, unsure, said in FOUND],
    ),
    "photos are counted beside liked ones, which are no results": (
        "words",
        [
            (["shownCount", 19, 700, "photos", "best first", True], "19 more of 700, best first"),
            (["shownCount", 1, 0, "photos", "", True], "1 more photo"),
            (["shownCount", 5, 700, "groups", "", True], "5 groups"),
        ],
    ),
    "a photo's day is shown as far as it is known": (
        "words",
        [(["photoFacts", FACTS | {"day": day}], [["Taken", said], SIZE]) for day, said in TAKEN.items()],
    ),
    "what was understood is said, and what is not sure is asked for": (
        "words",
        [
            (
                ["understood", [["bed", True], ["owl", False]]],
                "I see a bed and perhaps an owl. What is the one marked?",
            ),
            (["understood", [["scissors", False]]], "I see perhaps scissors. What is it?"),
            (["understood", [["", False]]], "I do not know what this is. What is it?"),
            (
                ["understood", [["bus", True], ["bus", True], ["", False]]],
                "I see a bus (2 times) and something unknown. What is the one marked?",
            ),
        ],
    ),
    "what is searched for in the place of words is said, and no photo is denied for a drawing": (
        "words",
        [
            (["fitRemark", {}, None], ""),
            (["fitRemark", {"sketch_fits": False, "things": [seen("cow", False), seen("bus", False)]}, None], ""),
            (["fitRemark", {"word_fits": False}, "cow"], COW_DENIED),
            (["fitRemark", {"things": [seen("armor", False, word="cow"), seen("bus", False)]}, None], COW_DENIED),
            (["fitRemark", {"word_read": "sea", "word_means": "seashore"}, None], "sea: searched for seashore."),
            (
                [
                    "fitRemark",
                    {"word_means": "2 × dog", "word_ignored": ["night"], "word_read": "dogs"},
                    "two dogs at night",
                ],
                "two dogs at night: searched for 2 × dog. Left out: night.",
            ),
            (
                ["fitRemark", {"things": [seen("boat", True), seen(None)]}, "cow"],
                "“cow” is looked for anywhere. If you drew it, name it on the drawing.",
            ),
            (["fitRemark", {"things": [seen("boat", True), seen("ox", word="cow")]}, "cow"], ""),
        ],
    ),
    "what else counts is named": (
        "also_counts",
        [
            ([{}, True], ""),
            ([{"like": ["4"]}, False], ""),
            ([{"like": ["4", "9"]}, False], " The order also depends on 1 other liked photo."),
            (
                [{"text": ["cow"], "like": ["4", "9"], "unlike": ["5"]}, True],
                " The order also depends on “cow”, 2 liked photos and 1 unwanted photo.",
            ),
        ],
    ),
    # A stroke from the middle to the right and a dot on bare paper: three of the ninths.
    "only what is drawn is a part of a picture": (
        "image_parts",
        [([], [["The top left", [0], 0], ["The middle", [14, 15, 20, 21], 4], ["The right", [16, 17, 22, 23], 5]])],
    ),
}


@pytest.fixture(scope="module")
def page(opened: Browser, server: Served) -> Browser:
    forgetful(opened).get(server.url)
    return opened


@pytest.mark.parametrize(("script", "calls"), PROMISES.values(), ids=PROMISES.keys())
def test_modules_do_what_is_promised_of_them(page: Browser, script: str, calls: list[tuple[list[Any], Any]]) -> None:
    for arguments, returned in calls:
        assert run(page, script, *arguments) == returned, arguments
