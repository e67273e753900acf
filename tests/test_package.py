"""The wheel, installed outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.networks import tiny_checkpoint
from tests.pictures import SHAPES, drawing, encoded, photo

PACKAGES = ("model", "indexer", "service", "weights")
_CHECKOUT = Path(__file__).resolve().parent.parent
_BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE")
_NO_PART = shutil.ignore_patterns("__pycache__", "*.partial", ".*")

_IMPORT_ALL = """
import importlib, pkgutil, sys
names = sys.argv[1:]
for name in list(names):
    package = importlib.import_module(name)
    names += [module.name for module in pkgutil.walk_packages(package.__path__, f"{name}.")]
for name in names:
    print(name, importlib.import_module(name).__file__)
"""


@dataclass(frozen=True)
class Installed:
    """A wheel and where it is installed."""

    wheel: Path
    site: Path

    def run(self, command: Sequence[str], folder: Path) -> str:
        """What the command prints, run in ``folder`` with the installed packages first; it must succeed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SBIR_")}
        environment["PYTHONPATH"] = str(self.site)
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    # From a copy: what an earlier build left in the checkout would get into the wheel.
    source = tmp_path_factory.mktemp("source")
    for name in _BUILT_FROM:
        shutil.copy(_CHECKOUT / name, source)
    for name in PACKAGES:
        shutil.copytree(_CHECKOUT / name, source / name, ignore=_NO_PART)
    dist, site = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    _python(["-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(source)])
    (wheel,) = dist.glob("*.whl")
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    _python([*pip, "--target", str(site), str(wheel)])
    return Installed(wheel, site)


def _python(arguments: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
        licences = [name for name in wheel.namelist() if name.endswith("licenses/LICENSE")]
    expected = {
        path.relative_to(_CHECKOUT).as_posix()
        for name in PACKAGES
        for path in (_CHECKOUT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".partial" and path.name[0] != "."
    }
    assert held == expected
    assert len(licences) == 1


def test_every_module_can_be_imported_from_the_wheel(installed: Installed, tmp_path: Path) -> None:
    printed = installed.run([sys.executable, "-W", "error", "-c", _IMPORT_ALL, *PACKAGES], tmp_path)
    imported = dict(line.split(" ", 1) for line in printed.splitlines())
    assert {
        "model.matcher",
        "indexer.building.builder",
        "indexer.samples",
        "service.search.searcher",
        "weights",
    } <= imported.keys()
    assert all(Path(file).is_relative_to(installed.site) for file in imported.values())


def test_the_installed_wheel_indexes_and_searches_outside_the_checkout(installed: Installed, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        shape = SHAPES[number % len(SHAPES)]
        (photos / f"{number}.png").write_bytes(encoded(photo(shape, size=96, seed=number)))
    (tmp_path / "sketch.png").write_bytes(encoded(drawing(SHAPES[0], size=128)))
    weights = str(tiny_checkpoint(tmp_path / "tiny.safetensors"))
    place = ["--index", str(tmp_path / "index")]

    told = installed.run([sys.executable, "-m", "indexer", "build", "photos", *place, "--weights", weights], tmp_path)
    assert "now live" in told
    info = json.loads(installed.run([sys.executable, "-m", "indexer", "info", "--json", *place], tmp_path))
    assert info["manifest"]["counts"]["photos"] == 6
    # pip gives the command the interpreter that installed it, and PYTHONPATH puts the installed packages first.
    command = str(installed.site / "bin" / "sketch-search")
    answer = json.loads(
        installed.run([command, "search", "sketch.png", *place, "--weights", weights, "--json"], tmp_path)
    )
    assert sorted(result["paths"][0] for result in answer["results"]) == [f"{number}.png" for number in range(6)]
