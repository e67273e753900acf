"""Skips tests that need what the machine lacks, and lets them fail if the machine is known to have it.

Without a browser, or without the shared data, the tests that need it are skipped, each with its reason. On a machine
that has them a skip would hide a mistake. There SKETCH_SEARCH_REQUIRE names them: `browser`, `data`, or both with a
comma between them.
"""

import os
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal, NoReturn

import pytest

Requirement = Literal["browser", "data"]
VARIABLE = "SKETCH_SEARCH_REQUIRE"
# Not imported from training.corpus, which loads PyTorch: skipping tests needs none.
DATA_VARIABLE = "SKETCH_SEARCH_DATA"
KNOWN: tuple[Requirement, ...] = ("browser", "data")

#: For tests, or for all of a module as its `pytestmark`. The fixtures are in tests/conftest.py.
needs_browser = pytest.mark.usefixtures("chromium")
needs_shared_data = pytest.mark.usefixtures("shared_data")
#: Libraries of servers and their clients, and Ray, leave sockets to the garbage collector.
_SOCKETS = ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
leaves_sockets = [pytest.mark.filterwarnings(f"ignore::{warning}") for warning in _SOCKETS]


def required(environment: Mapping[str, str] = os.environ) -> frozenset[str]:
    """Returns what this machine must have. Raises UsageError if the variable names something else than KNOWN."""
    names = frozenset(filter(None, map(str.strip, environment.get(VARIABLE, "").split(","))))
    if unknown := names.difference(KNOWN):
        raise pytest.UsageError(f"{VARIABLE} may name {' and '.join(KNOWN)}, but not {', '.join(sorted(unknown))}")
    return names


def missing_browser() -> str | None:
    """Says why no browser can be started here; None if one can."""
    if find_spec("selenium") is None:
        return "selenium is not installed"
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"there is no {program} here; Debian has it in chromium and chromium-driver"
    return None


def need_browser() -> None:
    if reason := missing_browser():
        _lacks("browser", reason)


def need_data() -> None:
    """Skip or fail the test unless SKETCH_SEARCH_DATA names the folder of shared data."""
    if not os.environ.get(DATA_VARIABLE):
        _lacks("data", f"{DATA_VARIABLE} does not name the folder of real images and golden figures")


def need_ray() -> None:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed; the extra `ray` has it")


def _lacks(what: Requirement, reason: str) -> NoReturn:
    if what in required():
        pytest.fail(f"{VARIABLE} names {what}, but {reason}", pytrace=False)
    pytest.skip(reason)
