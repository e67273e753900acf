import json
import re
from pathlib import Path

import pytest

from sketch_search.model.errors import ModelError
from sketch_search.training import pages
from sketch_search.training.commands import main
from sketch_search.training.corpus import DATA_VARIABLE
from sketch_search.training.pages import Published, rewrite_page
from tests.networks import tiny_checkpoint, write_class_folders
from tests.pictures import SHAPES

EVALUATE = "python -m sketch_search.training evaluate --data data --method ret"
BLOCKS = f"""
[commands]
small = "{EVALUATE} --weights tiny.safetensors"
broken = "{EVALUATE} --weights missing.safetensors"
refused = "{EVALUATE} --weights tiny.safetensors --split sketchy_104_21"

[block.small]
page = "page.md"
commands = ["small"]
text = "{{small/queries}} sketches"
rows = {{ "[Ret]" = "ret", other = ["{{small/photos}}", "none"] }}
[block.small.columns]
way = ""
"mAP ({{small/photos}} photos)" = "{{small/intervals/methods/*/map_all}}"
short = "{{small/methods/*/all/map_all:.1f}}"

[block.broken]
page = "other.md"
text = "{{broken/queries}} and {{refused/queries}}"

[block.unknown]
page = "page.md"
text = "{{small/methods/fused/all/map_all}}"
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # An evaluation compares its pictures with those.
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    write_class_folders(tmp_path / "data", seeds=range(2), shapes=SHAPES[:4])
    tiny_checkpoint(tmp_path / "tiny.safetensors")
    (tmp_path / "published.toml").write_text(BLOCKS)
    return tmp_path


def block(checkout: Path, name: str) -> str:
    texts = Published.read(checkout / "published.toml").of([], [name]).measure(checkout)
    return texts["page.md"][name]


def test_a_block_has_the_figures_that_its_command_prints_and_runs_it_again_only_for_another_checkpoint(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKETCH_SEARCH_WEIGHTS", "another.safetensors")
    first = block(checkout, "small")
    asked = ["evaluate", "--data", str(checkout / "data"), "--weights", str(checkout / "tiny.safetensors"), "--json"]
    capsys.readouterr()
    assert main([*asked, "--method", "ret"]) == 0
    printed = json.loads(capsys.readouterr().out)
    interval = printed["intervals"]["methods"]["ret"]["map_all"]
    whole = f"{interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"
    assert first.splitlines() == [
        "```sh",
        f"{EVALUATE} --weights tiny.safetensors",
        "```",
        "",
        f"{printed['queries']} sketches",
        "",
        f"| way | mAP ({printed['photos']} photos) | short |",
        "|---|---|---|",
        f"| [Ret] | {whole} | {interval['value']:.1f} |",
        f"| other | {printed['photos']} | none |",
    ]
    kept = checkout / pages.KEPT / "small.json"
    kept.write_text(kept.read_text().replace(f'"queries": {printed["queries"]}', '"queries": 1234'))
    assert "1,234 sketches" in block(checkout, "small"), "what is kept is not measured again"
    with pytest.raises(ModelError, match=re.escape("fused/all/map_all is not among ret")):
        block(checkout, "unknown")
    tiny_checkpoint(checkout / "tiny.safetensors", seed=1)
    again = block(checkout, "small")
    assert f"{printed['queries']} sketches" in again
    assert again != first


def test_all_commands_that_fail_are_named(checkout: Path) -> None:
    with pytest.raises(ModelError) as raised:
        block(checkout, "broken")
    assert "missing.safetensors, which cannot be read" in str(raised.value)
    assert "--split sketchy_104_21 --json` ended with 2 and without figures; the others are kept in" in str(
        raised.value
    )


def test_a_name_or_a_page_that_is_not_published_is_refused_with_those_that_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for wrong in (["--block", "nothing"], ["--page", "docs/nothing.md"]):
        assert main(["figures", *wrong]) == 2
        error = capsys.readouterr().err
        assert f"nothing is published as {wrong[1]}; name " in error
        assert "README.md" in error


def test_a_page_keeps_its_other_blocks_and_must_have_those_that_are_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Before\n<!-- begin: a -->\nold\n<!-- end: a -->\n<!-- begin: b -->\nb\n<!-- end: b -->\nAfter\n")
    rewrite_page(page, {"a": "new\n\\1"})
    written = page.read_text()
    assert written == (
        "Before\n<!-- begin: a -->\nnew\n\\1\n<!-- end: a -->\n<!-- begin: b -->\nb\n<!-- end: b -->\nAfter\n"
    )
    with pytest.raises(ModelError, match="has no block from <!-- begin: c --> to <!-- end: c -->"):
        rewrite_page(page, {"a": "newer", "c": ""})
    assert page.read_text() == written


def test_the_code_that_measures_is_known_by_what_it_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    module = tmp_path / "model" / "module.py"
    monkeypatch.setattr(pages, "WEIGHTS", tmp_path / "weights")
    digests = []
    for text in ("x = 1\n", "# A comment.\nx  =  1\n", "x = 2\n"):
        module.write_text(text)
        digests.append(pages.code_digest("model"))
    assert digests[0] == digests[1] != digests[2]
