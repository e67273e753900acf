"""The tutorial for Python runs from its first line to its last."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.service.small_gallery import draw_photo, draw_sketch

DOCS = Path(__file__).parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"(<!-- not run: [^>]*-->\n)?```python\n(.*?)```", re.DOTALL)


def test_each_block_of_the_tutorial_runs_after_those_before_it(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "Pictures"
    pictures.mkdir()
    for seed in range(12):
        draw_photo(seed).save(pictures / f"{seed}.png")
    draw_sketch().save(tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    for name, value in {"HOME": tmp_path, "SBIR_WEIGHTS": weights, "SBIR_INDEX": tmp_path / "index"}.items():
        monkeypatch.setenv(name, str(value))
    blocks = BLOCK.findall(DOCS.read_text(encoding="utf-8"))
    assert sum(1 for left_out, _ in blocks if left_out) == 1
    known: dict[str, Any] = {}
    for left_out, code in blocks:
        if left_out:
            compile(code, str(DOCS), "exec")
        else:
            exec(compile(code, str(DOCS), "exec"), known)
    shown = capsys.readouterr().out
    assert str(pictures) in shown
    assert "is most like cell" in shown
