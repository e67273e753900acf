from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sketch_search.indexer.commands import main
from sketch_search.indexer.samples import EACH, SCENES, SIZE, SKETCHED, THINGS


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "new"
    assert main(["samples", str(folder)]) == 0
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_at_least_60_pictures_of_at_least_15_things_are_drawn_and_all_differ(written: Path) -> None:
    assert len(THINGS) >= 15
    drawn = [path for name in THINGS for path in sorted((written / "photos" / name).iterdir())]
    assert len(drawn) == len(THINGS) * EACH >= 60
    drawn += sorted((written / "photos" / "scenes").iterdir())
    assert len(drawn) == (len(THINGS) + len(SCENES)) * EACH
    assert len({path.read_bytes() for path in drawn}) == len(drawn)
    for path in drawn:
        with Image.open(path) as picture:
            assert (picture.mode, picture.size) == ("RGB", (SIZE, SIZE))
            assert np.asarray(picture).std() > 10


def test_the_sketches_are_black_lines_on_white(written: Path) -> None:
    assert len(SKETCHED) >= 12
    assert sorted(path.stem for path in (written / "sketches").iterdir()) == sorted(SKETCHED)
    for path in (written / "sketches").iterdir():
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert (pixels.max(axis=2) == pixels.min(axis=2)).all()
        assert 0.01 < (pixels < 128).mean() < 0.2
        # Nothing is cut off at the edges.
        assert min(pixels[0].min(), pixels[-1].min(), pixels[:, 0].min(), pixels[:, -1].min()) == 255


def test_existing_files_are_not_overwritten(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(written)
    assert main(["samples", str(written)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert files(written) == before
