"""What the modules of tests may import from each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def imported(file: Path) -> set[str]:
    """Every name that a module imports, written out: ``from tests.service import served`` is tests.service.served."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("file", sorted(TESTS.rglob("*.py")), ids=lambda file: file.relative_to(TESTS).as_posix())
def test_nothing_is_imported_from_a_module_that_pytest_collects(file: Path) -> None:
    # Such a module is run by pytest under another name, so its fixtures and constants would exist twice.
    parts = {part for name in imported(file) if name.startswith("tests.") for part in name.split(".")[1:]}
    assert not {part for part in parts if part == "conftest" or part.startswith("test_")}
