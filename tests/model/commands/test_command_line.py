from __future__ import annotations

import argparse

from model.commands import command_line, program
from model.commands.command_line import parser
from model.datasets.tasks import LARGE_PROTOCOLS, PARTS, PROTOCOLS, STANDARD_SPLITS
from model.engine import MAX_VARIANTS, METHODS, PRESETS
from model.evaluation.answers import COMPOSITES
from model.evaluation.figures import RESAMPLED
from model.papers.recipe import RECIPES


def test_options_choose_among_the_names_that_the_rooms_know() -> None:
    assert command_line._LARGE == LARGE_PROTOCOLS
    assert command_line._METHODS == METHODS
    assert command_line._PARTS == PARTS
    assert tuple(sorted(PRESETS)) == command_line._PRESETS
    assert command_line._PROTOCOLS == PROTOCOLS
    assert command_line._RESAMPLED == RESAMPLED
    assert command_line._STANDARD_SPLITS == STANDARD_SPLITS
    assert tuple(range(1, MAX_VARIANTS + 1)) == command_line._VARIANTS
    assert parser().parse_args(["composites"]).count == COMPOSITES
    assert RECIPES.name == "recipes"


def test_every_command_has_something_that_runs_it() -> None:
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name in commands.choices:
        assert callable(getattr(program, f"run_{name.replace('-', '_')}"))
