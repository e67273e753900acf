"""Everything that a person who searches does, in a Python that has no PyTorch."""

import os
from pathlib import Path

import pytest
from PIL import Image

from sketch_search import model
from sketch_search.indexer import open_index
from sketch_search.indexer import samples as drawn
from tests.networks import tiny_checkpoint
from tests.patience import PATIENCE
from tests.programs import run_python
from tests.searching import Searcher

SKETCHED = drawn.SKETCHED[4:]
# Python runs this when it starts. What is hidden cannot be found, as if it were not installed.
HIDES = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition(".")[0] in {"torch", "timm", "open_clip", "onnx", "sklearn"}
        return None if hidden else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
# In one process, which imports what it needs once.
EVERYTHING = """
import sys
from sketch_search import Gallery, encode, rank
from sketch_search.service.commands import main
folder, sketch, why = sys.argv[1:]
assert main(["index", "build", folder]) == 0
assert main(["explain", sketch, "-o", why]) == 0
assert main(["model", "info"]) == 0
with Gallery.open(folder, progress=False) as gallery:
    found = gallery.search(sketch, k=1)
    assert len(gallery.explain(sketch, found[0]).cosines)
    assert encode([sketch], "sketch").shape[0] == len(rank(sketch, [found[0].image()]))
print(sorted({photo.path.split("/")[-2] for photo in found}))
"""


def without(tmp_path: Path) -> dict[str, str]:
    """Returns the environment of a Python without PyTorch, with an index folder of its own."""
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text(HIDES)
    paths = [str(hiding), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "SBIR_INDEX": str(tmp_path / "index")}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> drawn.Samples:
    """One picture of each of few things, so that they are soon indexed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "EACH", 1)
        patch.setattr(drawn, "THINGS", {thing: drawn.THINGS[thing] for thing in SKETCHED})
        patch.setattr(drawn, "SKETCHED", SKETCHED)
        patch.setattr(drawn, "SCENES", ())
        return drawn.write_samples(tmp_path_factory.mktemp("samples"))


def test_photos_are_indexed_searched_and_explained_without_pytorch(samples: drawn.Samples, tmp_path: Path) -> None:
    given = str(samples.photos), str(samples.sketches / "umbrella.png"), str(tmp_path / "why")
    done = run_python("-c", EVERYTHING, *given, environment=without(tmp_path), seconds=5 * PATIENCE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "why" / "explanation.json").is_file()
    assert "vocabulary:          1,773 words\n" in done.stdout
    assert done.stdout.endswith("['umbrella']\n")
    # Seven of eight sketches find their thing first.
    best, matcher = dict[str, str](), model.load()
    with open_index(tmp_path / "index", matcher) as index:
        for name in SKETCHED:
            with Image.open(samples.sketches / f"{name}.png") as sketch:
                best[name] = Searcher(index, matcher).find(sketch.convert("RGB"), k=1).results[0].paths[0]
    assert sum(name in Path(path).stem.split() for name, path in best.items()) >= 7, best


@pytest.mark.parametrize("command", ["evaluate", "train zse/tiny --backbone x"])
def test_a_command_that_needs_pytorch_names_the_extra_that_brings_it(command: str, tmp_path: Path) -> None:
    done = run_python("-m", "sketch_search", "model", *command.split(), environment=without(tmp_path))
    told = "error: torch is not installed; run `pip install 'sketch-search[train]'`.\n"
    assert (done.returncode, done.stderr) == (2, told)


def test_a_checkpoint_that_needs_pytorch_is_refused_with_the_extra_that_brings_it(tmp_path: Path) -> None:
    weights = tiny_checkpoint(tmp_path / "tiny.safetensors")
    done = run_python("-c", f"import model; model.load({str(weights)!r})", environment=without(tmp_path))
    assert done.returncode
    assert "needs PyTorch: pip install 'sketch-search[gpu]'" in done.stderr
