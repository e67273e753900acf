"""The source distribution and the wheel made of it, run where other modules have the names of the packages."""

import ast
import json
import os
import re
import socket
import subprocess
import tarfile
import zipfile
from collections import Counter
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from grimp import build_graph

from tests.documents import read
from tests.installations import CHECKOUT, PACKAGES, Environment, copy_of_the_project, environment_with, python
from tests.networks import tiny_checkpoint
from tests.programs import PATIENCE, run_until
from tests.service.small_gallery import save_copy

PROGRAMS = ("indexer", "model", "service", "training")
_IMPORT_ALL = """
import importlib, pkgutil, sketch_search
names = [module.name for module in pkgutil.walk_packages(sketch_search.__path__, "sketch_search.")]
for name in names:
    print(name, importlib.import_module(name).__file__)
"""

# All that a gallery needs, in one process, so that its libraries are imported once. One picture of two things will do.
_USE_ALL = """
import contextlib, sys
from sketch_search import Gallery, encode, model, rank
from sketch_search.service.commands import main
from sketch_search.training.commands import main as training
from sketch_search.indexer import samples
samples.EACH, samples.SCENES, samples.SKETCHED = 1, (), ("cat", "star")
samples.THINGS = {thing: samples.THINGS[thing] for thing in samples.SKETCHED}
sketch = "demo/sketches/cat.png"
assert main(["index", "samples", "demo"]) == 0
assert main(["index", "demo/photos", "--index", "index"]) == 0
with open("found.json", "w") as file, contextlib.redirect_stdout(file):
    assert main(["search", sketch, "--index", "index", "--json"]) == 0
assert main(["explain", sketch, "--index", "index", "-o", "why"]) == main(["model", "info"]) == 0
with Gallery.open("demo/photos", index="index", progress=False) as gallery:
    best = gallery.search(sketch, k=1)[0]
    assert len(gallery.explain(sketch, best).cosines)
    assert encode([sketch], "sketch").shape[0] == len(rank(sketch, [best.image()])) == 1
with contextlib.redirect_stderr(sys.stdout):
    assert main(["serve", "--index", "index"]) == training(["evaluate"]) == training(["train", "x"]) == 2
try:
    model.load("tiny.safetensors")
except model.ModelError as error:
    print(error)
"""


@dataclass(frozen=True)
class Built:
    source: Path
    wheel: Path
    there: Environment


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    source, dist = copy_of_the_project(tmp_path_factory.mktemp("source")), tmp_path_factory.mktemp("dist")
    # The source distribution, and the wheel made of nothing else.
    python(["-m", "build", "--no-isolation", "--outdir", str(dist), str(source)])
    (wheel,) = dist.glob("*.whl")
    (archive,) = dist.glob("*.tar.gz")
    return Built(archive, wheel, environment_with(wheel, tmp_path_factory.mktemp("there")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with modules of somebody else, which end every program that imports one."""
    folder = tmp_path_factory.mktemp("decoys")
    for name in PACKAGES:
        if name != "sketch_search":
            (folder / f"{name}.py").write_text(f"raise SystemExit('the {name}.py of somebody else was imported')")
    return folder


def test_the_wheel_holds_the_bytes_of_every_file_of_the_packages_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        held = {name: wheel.read(name) for name in wheel.namelist() if ".dist-info/" not in name}
        licences = {Path(name).name for name in wheel.namelist() if "/licenses/" in name}
    paths = [
        path.relative_to(CHECKOUT)
        for name in PACKAGES
        for path in (CHECKOUT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".partial" and path.name[0] != "."
    ]
    files = {f"sketch_search/{path}".replace("sketch_search/sketch_search", "sketch_search"): path for path in paths}
    # Of networks, the wheel holds the default with its photo side and the two-stage report's; others are measured.
    shipped = {f"sketch_search/weights/{name}.safetensors" for name in ("default", "photo-side", "zse")}
    files = {name: path for name, path in files.items() if path.suffix != ".safetensors" or name in shipped}
    # `python -m indexer` needs these beside sketch_search.
    short = {f"{name}/{file}.py" for name in PROGRAMS for file in ("__init__", "__main__")}
    assert held.keys() == files.keys() | short
    different = [name for name, found in held.items() if found != (CHECKOUT / files.get(name, name)).read_bytes()]
    assert different == []
    assert licences == {"LICENSE", "NOTICE"}


def test_the_short_names_of_the_wheel_are_programs(built: Built, tmp_path: Path) -> None:
    for name in PROGRAMS:
        printed = built.there.run([built.there.python, "-m", name, "--help"], tmp_path)
        assert printed.startswith("Usage: sketch-search" if name == "service" else f"Usage: python -m {name} ")


def test_no_module_names_another_one_by_a_string_that_a_wheel_would_not_know() -> None:
    named = re.compile(r"""["'](indexer|model|service|training|weights)\.[a-z_]+[."']|\bfiles\(["']""")
    sources = [path for name in PACKAGES for path in (CHECKOUT / name).rglob("*.py")]
    assert [path for path in sources if named.search(path.read_text())] == []


def test_no_files_import_each_other_in_a_circle_even_for_types_alone() -> None:
    graph = build_graph("sketch_search", exclude_type_checking_imports=False, cache_dir=None)
    # What the package itself exports is imported when it is asked for.
    files = graph.modules - {"sketch_search"}
    TopologicalSorter({file: graph.find_modules_directly_imported_by(file) & files for file in files}).prepare()


def test_no_two_classes_and_types_of_the_product_have_one_name() -> None:
    names = Counter[str]()
    for file in (file for package in PACKAGES for file in sorted((CHECKOUT / package).rglob("*.py"))):
        # PyTorch's networks are named as what ONNX Runtime computes of them.
        if not {"training", "torch"} & set(file.parts):
            for node in ast.parse(read(file)).body:
                given = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                types = [one.id for one in given if isinstance(one, ast.Name) and re.match("[A-Z].*[a-z]", one.id)]
                names.update([node.name] if isinstance(node, ast.ClassDef) else types)
    # A gallery is opened by users, and asked by a ranking; those of pictures mean the same where they are.
    twice = {name for name, count in names.items() if count > 1}
    assert twice == {"Gallery", "Box", "Labels", "Mask", "Pixels"}


def test_the_distributions_describe_themselves_as_an_index_wants_it_and_hold_no_tests(built: Built) -> None:
    python(["-m", "twine", "check", "--strict", str(built.source), str(built.wheel)])
    with tarfile.open(built.source) as archive:
        assert not [name for name in archive.getnames() if name.partition("/")[2].startswith("tests")]


def test_every_module_of_the_wheel_is_imported_beside_others_with_its_names(built: Built, folder: Path) -> None:
    # -c, since it puts the current folder in front of all else.
    printed = built.there.run([built.there.python, "-W", "error", "-c", _IMPORT_ALL], folder)
    imported = dict(line.split(" ", 1) for line in printed.splitlines())
    assert {
        f"sketch_search.{name}" for name in ("gallery", "model.matcher", "indexer.samples", "service.http.app")
    } <= (imported.keys())
    assert all(Path(file).is_relative_to(built.there.folder) for file in imported.values())


def test_the_wheel_indexes_and_searches_without_extras_beside_modules_of_its_names(built: Built, folder: Path) -> None:
    plain = replace(built.there, extras=False)
    assert plain.run([plain.command, "--version"], folder).startswith("sketch-search 1.")
    told = plain.run([plain.python, "-m", "sketch_search.indexer", "--help"], folder)
    assert told.startswith("Usage: python -m sketch_search.indexer ")
    tiny_checkpoint(folder / "tiny.safetensors")
    told = plain.run([plain.python, "-c", _USE_ALL], folder)
    assert "now current" in told
    assert "vocabulary:          1,862 words\n" in told
    assert (folder / "why" / "explanation.json").is_file()
    # What needs PyTorch names the extra that brings it.
    assert told.count("error: torch is not installed; run `pip install 'sketch-search[train]'`.\n") == 2
    assert "needs PyTorch: pip install 'sketch-search[gpu]'" in told
    assert "is not installed; run `pip install 'sketch-search[server]'`" in told
    found = json.loads((folder / "found.json").read_text())["results"]
    assert found[0]["paths"][0].startswith("cat/")


def test_the_lines_of_the_readme_run_one_after_the_other(built: Built, tmp_path: Path) -> None:
    """In a fresh folder and home, with the wheel installed; servers and watches are stopped once they have begun."""
    home = tmp_path / "home"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for number in range(3):
        save_copy(home / "Pictures" / f"{number}.png", number, 0)
    path = f"{built.there.folder / 'bin'}:{os.environ['PATH']}"
    unset = dict.fromkeys(("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_PICTURES_DIR"), "")
    variables = {**built.there.variables, **unset, "HOME": str(home), "PATH": path, "SKETCH_SEARCH_PORT": str(port)}

    def run(line: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", line], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    sh, python = (
        re.findall(rf"```{language}\n(.*?)```", read(CHECKOUT / "README.md"), re.DOTALL)
        for language in ("sh", "python")
    )
    lines = [line for block in sh for line in block.splitlines() if not re.match(r"python3 -m venv|pip |make ", line)]
    served = lines.index(next(line for line in lines if line.startswith("curl ")))
    printed = {}
    for number, line in enumerate(lines):
        command = line.partition("#")[0].strip()
        if number == served:
            continue
        # The answer to the next line is asked for while this one serves.
        asked = [lines[number + 1].replace("8000", str(port))] if number + 1 == served else []
        if command in ("sketch-search ~/Pictures", "sketch-search", "sketch-search index build --watch"):
            begun = "sketch-search at " if command == "sketch-search" else "index: "

            def said(told: str, begun: str = begun, asked: list[str] = asked) -> bool:
                if told.startswith(begun):
                    printed.update({one: run(one) for one in asked})
                return told.startswith(begun)

            ended, output = run_until(["bash", "-ec", f"exec {command}"], said, environment=variables, folder=tmp_path)
            assert ended == 0, f"{line}: {output}"
        else:
            printed[line] = run(command)
        if command.startswith("sketch-search index samples "):
            # One picture of each thing will do: the one that a later line names.
            for photo in tmp_path.glob("samples/photos/*/* [!3].jpg"):
                photo.unlink()
    found = [one for line, one in printed.items() if line.startswith(("sketch-search search", "curl"))]
    assert len(found) == 3
    assert all("umbrella" in one for one in found[:2])
    assert [paths[0] for paths in sorted(hit["paths"] for hit in json.loads(found[2])["results"])] == [
        f"{n}.png" for n in range(3)
    ]
    (tmp_path / "readme.py").write_text(python[0])
    scores = [float(line.rpartition(".png ")[2]) for line in run("python readme.py").splitlines()]
    assert len(scores) == 3
    assert 1 >= scores[0] >= scores[1] >= scores[2] >= 0
