from __future__ import annotations

import argparse
import importlib

from model.commands import command_line
from model.commands.command_line import parser
from model.datasets.layouts import STANDARD_SPLITS
from model.datasets.tasks import LAYOUTS, PARTS, PROTOCOLS
from model.evaluation.composites import COMPOSITES
from model.evaluation.per_query import RESAMPLED
from model.network.calibration import METHODS
from model.network.config import PRESETS
from model.network.tokens import MOST_VARIANTS
from model.papers.recipe import RECIPES


def test_options_choose_among_the_names_that_the_rooms_know() -> None:
    assert command_line._LAYOUTS == LAYOUTS
    assert command_line._METHODS == METHODS
    assert command_line._PARTS == PARTS
    assert tuple(sorted(name for name in PRESETS if PRESETS[name].encoder == "vit")) == command_line._PRESETS
    assert command_line._PROTOCOLS == PROTOCOLS
    assert command_line._RESAMPLED == RESAMPLED
    assert command_line._STANDARD_SPLITS == STANDARD_SPLITS
    assert tuple(range(1, MOST_VARIANTS + 1)) == command_line._VARIANTS
    assert parser().parse_args(["composites"]).count == COMPOSITES
    assert RECIPES.name == "recipes"


def test_every_command_has_something_that_runs_it() -> None:
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    rooms = {name: room for room, names in command_line._MODULES.items() for name in names}
    assert set(commands.choices) == set(rooms)
    for name, room in rooms.items():
        module = importlib.import_module(f"model.commands.{room}")
        assert callable(getattr(module, f"run_{name.replace('-', '_')}"))
