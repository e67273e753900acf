from __future__ import annotations

import click
import pytest

from model.commands import main, model
from model.datasets.tasks import PROTOCOLS
from model.evaluation.answers import COMPOSITES
from model.evaluation.figures import RESAMPLED
from model.papers.recipe import RECIPES
from tests.command_lines import commands_of, parse


def test_options_choose_among_the_names_that_the_rooms_know() -> None:
    intervals = next(one for one in commands_of(model)["evaluate"].params if one.name == "intervals")
    assert isinstance(intervals.type, click.Choice)
    assert tuple(intervals.type.choices) == RESAMPLED
    assert parse(model, ["composites"]).params["count"] == COMPOSITES
    assert RECIPES.name == "recipes"


def test_a_name_that_is_none_is_a_sentence_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--protocol", "zeroshot"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: Invalid value for '--protocol': 'zeroshot' is not one of ")
    assert all(f"'{name}'" in err for name in PROTOCOLS)
    assert err.endswith("`sketch-search model evaluate --help` lists what there is.\n")
