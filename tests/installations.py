"""The project installed outside the checkout, into environments that have nothing else of it."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sketch_search.model.terminal import EXTRAS
from tests.programs import LONG, PATIENCE, run_python

CHECKOUT = Path(__file__).resolve().parent.parent
#: The packages, as they lie side by side in a checkout.
PACKAGES = ("indexer", "model", "service", "sketch_search", "training", "weights")
_BUILT_FROM = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "NOTICE", "SECURITY.md")
_NO_PART = shutil.ignore_patterns("__pycache__", "*.partial", ".*")


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees the libraries of the one that runs the tests."""

    folder: Path
    extras: bool = True

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    @property
    def command(self) -> str:
        return str(self.folder / "bin" / "sketch-search")

    @property
    def variables(self) -> dict[str, str]:
        """The variables of this process, but for the program's settings and what leads to other packages."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SKETCH_SEARCH_")}
        kept.pop("PYTHONPATH", None)
        return kept | ({"PYTHONPATH": str(_libraries())} if self.extras else {})

    def run(self, command: Sequence[str], folder: Path) -> str:
        done = subprocess.run(command, cwd=folder, env=self.variables, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout


def environment_with(wheel: Path, folder: Path) -> Environment:
    """A new environment in ``folder``, in which the wheel is installed."""
    python(["-m", "venv", "--without-pip", str(folder)])
    plain = folder / "plain"
    plain.mkdir()
    for entry in _libraries().iterdir():
        # Nothing that leads to a checkout, as an editable install does.
        if entry.name not in EXTRAS and "sketch_search" not in entry.name:
            (plain / entry.name).symlink_to(entry)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "plain.pth").write_text(str(plain))
    there = Environment(folder)
    pip = ["-m", "pip", "--python", there.python, "install", "--quiet", "--disable-pip-version-check"]
    python([*pip, "--no-index", "--no-deps", "--ignore-installed", str(wheel)])
    return there


def copy_of_the_project(folder: Path) -> Path:
    """Copies the files that distributions are built from. In the checkout an earlier build may have left others."""
    for name in _BUILT_FROM:
        shutil.copy(CHECKOUT / name, folder)
    for name in PACKAGES:
        shutil.copytree(CHECKOUT / name, folder / name, symlinks=True, ignore=_NO_PART)
    return folder


def python(arguments: Sequence[str], folder: Path | None = None) -> None:
    done = run_python(*arguments, folder=folder, seconds=LONG)
    assert done.returncode == 0, done.stdout + done.stderr


def _libraries() -> Path:
    found = importlib.util.find_spec("numpy")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parents[1]
