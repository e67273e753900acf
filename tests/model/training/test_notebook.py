"""Each block of Python in docs/networks.md runs after those before it."""

import re
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from PIL import Image

from tests.documents import CHECKOUT, read
from tests.learning import write_class_folders

PAGE = CHECKOUT / "docs" / "networks.md"


def test_the_blocks_for_notebooks_run_in_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_class_folders(tmp_path / "mine", seeds=range(4), shapes=("circle", "star"))
    (tmp_path / "weights").symlink_to(CHECKOUT / "weights")
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    with matplotlib.rc_context({"backend": "agg"}):
        for code in re.findall(r"```python\n(.*?)```", read(PAGE), re.DOTALL):
            exec(compile(code, str(PAGE), "exec"), known)
    assert known["sketch"].shape == (3, 224, 224)
    assert -2.12 <= known["pixels"].min() < known["pixels"].max() <= 2.65
    assert known["drawn"].patches.shape == (1, 16, 192)
    assert known["drawn"].ret.shape == tuple(known["one"].ret.shape) == (1, 192)
    assert known["scores"].shape == (1, len(corpus.photos)) == (1, *known["logits"].shape)
    assert 0 < known["scores"].min() < known["scores"].max() < 1
    assert known["heads"].shape[1:] == (16, 16)
    with Image.open("attention.png") as figure:
        assert figure.size == (1400, 250)
    assert capsys.readouterr().out.split()[0] in corpus.labels
