"""The source distribution and the wheel made of it, installed outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.client import Client
from service.schemas import SearchResponse
from tests.networks import tiny_checkpoint
from tests.patience import PATIENCE
from tests.pictures import SHAPES, drawing, encoded, photo
from tests.programs import LONG, run_python
from tests.service.commands.stopped import run_until

PHOTOS = 6
PACKAGES = ("model", "indexer", "service", "weights")
_CHECKOUT = Path(__file__).resolve().parent.parent
_BUILT_FROM = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "SECURITY.md")
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
    """What was built, and where the wheel is installed."""

    source: Path
    wheel: Path
    site: Path

    @property
    def command(self) -> str:
        """The command that the wheel installs."""
        # pip gives it the interpreter that installed it, and PYTHONPATH puts the installed packages first.
        return str(self.site / "bin" / "sketch-search")

    @property
    def environment(self) -> dict[str, str]:
        """The variables of this process, but for the program's settings, with the installed packages first."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SBIR_")}
        return {**kept, "PYTHONPATH": str(self.site)}

    def run(self, command: Sequence[str], folder: Path) -> str:
        """What the command prints, run in ``folder`` with the installed packages first; it must succeed."""
        done = subprocess.run(
            command, cwd=folder, env=self.environment, capture_output=True, text=True, timeout=PATIENCE
        )
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
    # The source distribution, and the wheel made of nothing else.
    _python(["-m", "build", "--no-isolation", "--outdir", str(dist), str(source)])
    (wheel,) = dist.glob("*.whl")
    (archive,) = dist.glob("*.tar.gz")
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    _python([*pip, "--target", str(site), str(wheel)])
    return Installed(archive, wheel, site)


def _python(arguments: Sequence[str]) -> None:
    done = run_python(*arguments, seconds=LONG)
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
    # Of the networks the wheel holds the default and the photo side that it stands on; the others are to be measured.
    networks = {path.relative_to(_CHECKOUT).as_posix() for path in (_CHECKOUT / "weights").glob("*.safetensors")}
    assert held == expected - networks | {"weights/default.safetensors", "weights/photo-side.safetensors"}
    assert len(licences) == 1


def test_the_distributions_describe_themselves_as_an_index_wants_it(installed: Installed) -> None:
    _python(["-m", "twine", "check", "--strict", str(installed.source), str(installed.wheel)])


def test_the_source_distribution_holds_no_part_of_the_tests(installed: Installed) -> None:
    with tarfile.open(installed.source) as archive:
        assert not [name for name in archive.getnames() if name.partition("/")[2].startswith("tests")]


def test_every_module_can_be_imported_from_the_wheel(installed: Installed, tmp_path: Path) -> None:
    printed = installed.run([sys.executable, "-W", "error", "-c", _IMPORT_ALL, *PACKAGES], tmp_path)
    imported = dict(line.split(" ", 1) for line in printed.splitlines())
    assert {
        "model.matcher",
        "indexer.building.builds",
        "indexer.samples",
        "service.search.searcher",
        "weights",
    } <= imported.keys()
    assert all(Path(file).is_relative_to(installed.site) for file in imported.values())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with nothing but a checkpoint, a sketch, and a folder of photos, which is returned."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(PHOTOS):
        shape = SHAPES[number % len(SHAPES)]
        (folder / f"{number}.png").write_bytes(encoded(photo(shape, size=96, seed=number)))
    (tmp_path / "sketch.png").write_bytes(encoded(drawing(SHAPES[0], size=128)))
    tiny_checkpoint(tmp_path / "tiny.safetensors")
    return folder


def test_the_installed_wheel_indexes_and_searches_outside_the_checkout(installed: Installed, photos: Path) -> None:
    folder, place, weights = photos.parent, ("--index", "index"), ("--weights", "tiny.safetensors")
    # The same program under its other name.
    told = installed.run([sys.executable, "-m", "indexer", "build", "photos", *place, *weights], folder)
    assert f"photos:      {PHOTOS}" in told
    assert "now live" in told
    found = installed.run([installed.command, "search", "sketch.png", *place, *weights, "--json"], folder)
    paths = sorted(result["paths"][0] for result in json.loads(found)["results"])
    assert paths == [f"{number}.png" for number in range(PHOTOS)]


@pytest.mark.skipif(os.name != "posix", reason="stops the server as Ctrl-C does on POSIX systems")
def test_the_installed_command_alone_indexes_a_folder_and_serves_it(installed: Installed, photos: Path) -> None:
    answers: list[SearchResponse] = []

    def searched(line: str) -> bool:
        if not line.startswith("sketch-search at "):
            return False
        url = line.split()[-1]
        assert "<canvas" in httpx.get(url, timeout=PATIENCE).text
        with Client(url, timeout=PATIENCE) as client:
            answers.append(client.search(photos.parent / "sketch.png"))
        return True

    command = [installed.command, "photos", "--index", "index", "--weights", "tiny.safetensors", "--port", "0"]
    code, printed = run_until(command, searched, environment=installed.environment, folder=photos.parent)
    assert code == 0, printed
    assert [len(answer.results) for answer in answers] == [PHOTOS]
