import json
import re
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sketch_search.indexer import BuildRequest, build, open_index
from sketch_search.model import load
from sketch_search.model.commands import main as model
from sketch_search.model.engine import read_metadata
from sketch_search.training.commands import main
from sketch_search.training.corpus import DATA_VARIABLE, read_class_folders
from sketch_search.training.evaluation.figures import measure, relevance
from sketch_search.training.evaluation.scoring import score_matrices
from sketch_search.training.papers import tables
from sketch_search.training.papers.recipe import merge
from sketch_search.training.papers.trainer import Trainer
from sketch_search.training.tasks import read_task
from tests import networks
from tests.documents import CHECKOUT
from tests.pictures import SHAPES, drawing
from tests.searching import Searcher

SIZES = networks.toml(networks.NETWORK)
RECIPE = f"""\
preset = "zse-ti16"
steps = 4
evaluate_every = 2
bf16 = false
[network]
image_size = 64
{SIZES}
[samples]
count = 2
[optimiser]
encoder_rate = 1e-3
head_rate = 2e-3
"""
TABLE = """\
title = "Two rows"
costs = true
[[row]]
name = "not trained"
recipe = "RECIPE"
learns = false
method = "rn"
[[row]]
name = "trained"
recipe = "RECIPE"
method = "rn"
set = { optimiser = { encoder_rate = RATE } }
"""
BY_RET = '[[row]]\nname = "by [Ret]"\ntraining = "not trained"\nmethod = "ret"\n'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    networks.write_class_folders(folder, seeds=range(3))
    return folder


@pytest.fixture
def folder(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").symlink_to(data)
    (tmp_path / "small.toml").write_text(RECIPE)
    save_file(networks.small_backbone(), tmp_path / "vit.safetensors")
    write_table(tmp_path, TABLE)
    monkeypatch.setattr(tables, "TABLES", tmp_path)
    return tmp_path


def write_table(folder: Path, text: str, rate: float = 1e-3) -> None:
    (folder / "two.toml").write_text(text.replace("RECIPE", str(folder / "small.toml")).replace("RATE", str(rate)))


def run(folder: Path, *options: str | Path, name: str = "two") -> int:
    given = ("--data", folder / "data", "--backbone", folder / "vit.safetensors", "--runs", folder / "runs")
    return main(["table", name, *map(str, given), *map(str, options)])


def test_a_table_trains_once_averages_seeds_and_measures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(
        folder, TABLE.replace('[[row]]\nname = "trained"', f'{BY_RET}[[row]]\nseeds = [0, 1]\nname = "trained"')
    )
    assert run(folder, "--json") == 0
    plain, by_ret, trained = json.loads(capsys.readouterr().out)["rows"]
    assert [row["steps"] for row in (plain, by_ret, trained)] == [0, 0, 4]
    assert [point[0] for point in trained["curve"]] == [12, 24]
    assert plain["checkpoint"] == by_ret["checkpoint"] != trained["checkpoint"]
    assert not (folder / "runs" / "two" / "by-ret-0").exists(), "a training of another row is measured"
    first = trained["figures"]["map_all"]
    assert first["low"] <= first["value"] <= first["high"]
    assert by_ret["figures"] != plain["figures"]
    task, values = read_task(data=folder / "data"), []
    for seed in (0, 1):
        matcher = load(folder / "runs" / "two" / f"trained-{seed}" / "final.safetensors", dtype="float32", variants=1)
        values.append(measure(task, score_matrices(matcher, task.corpus, ["rn"])).figures["rn"]["all"]["map_all"])
    assert first["value"] == pytest.approx(np.mean(values))
    assert trained["seeds"] == pytest.approx(sorted(values))
    assert plain["costs"]["G a photo"] > 0
    assert plain["costs"]["M a pair"] > 0
    logs = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("state.pt")}
    page = folder / "page.md"
    page.write_text("Before\n<!-- begin: table two -->\nold\n<!-- end: table two -->\nAfter\n")
    assert run(folder, "--page", page) == 0
    assert logs == {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("state.pt")}
    text = page.read_text()
    assert text.startswith("Before\n<!-- begin: table two -->\nTwo rows. In all rows: queries 27, ")
    assert text.endswith("<!-- end: table two -->\nAfter\n")
    assert "old" not in text
    assert "Seeds 0, 1; " in text
    assert f"| {min(values):.3f}, {max(values):.3f} |" in text


def test_a_table_is_drawn_from_its_sheet_alone_which_is_refused_if_of_another_recipe(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = TABLE.replace("set =", 'reported = "0.698"\nset =')
    write_table(folder, table)
    sheets = ("--sheets", folder / "sheets", "--kept")
    assert run(folder, *sheets) == 2
    assert "sheets has no sheet of two; leave out --kept to run its rows" in capsys.readouterr().err
    assert run(folder, "--sheets", folder / "sheets") == 0
    first = capsys.readouterr().out
    assert re.search(r"\| 0\.698 \|$", first, re.MULTILINE)
    shutil.rmtree(folder / "runs")
    monkeypatch.setattr(tables, "TRAININGS", {})
    for _ in range(2):
        assert run(folder, *sheets) == 0
        assert capsys.readouterr().out == first
    write_table(folder, table, rate=0.5)
    assert run(folder, "--sheets", folder / "sheets") == 2
    assert f"trained in {folder / 'sheets' / 'two.json'} is of another recipe or measure" in capsys.readouterr().err


def test_a_sheet_of_other_weights_or_of_another_split_is_not_printed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    networks.tiny_checkpoint(folder / "zse.safetensors")
    (folder / "optional" / "data").mkdir(parents=True)
    (folder / "optional" / "data" / "split.json").write_text("{}")
    monkeypatch.setenv("SKETCH_SEARCH_DATA", str(folder / "optional"))
    monkeypatch.setattr(tables, "PHOTO_SIDE", folder / "photo-side.safetensors")
    task = read_task(data=folder / "data")
    monkeypatch.setattr(tables, "read_task", lambda *_, **__: task)
    write_table(folder, 'title = "One"\n[[row]]\nname = "it"\ncheckpoint = "zse"\nmethod = "ret"\n')

    def printed() -> int:
        return main(["table", "two", "--runs", str(folder / "runs"), "--sheets", str(folder / "sheets")])

    assert printed() == 0
    first = capsys.readouterr().out
    assert printed() == 0
    assert capsys.readouterr().out == first
    notes = read_metadata(folder / "zse.safetensors") | {"origin": "elsewhere"}
    save_file(load_file(folder / "zse.safetensors"), folder / "zse.safetensors", notes)
    assert printed() == 0, "no row reads where a checkpoint comes from"
    assert capsys.readouterr().out == first
    networks.tiny_checkpoint(folder / "zse.safetensors", seed=1)
    assert printed() == 2
    assert "two.json is of other weights; remove it to run the row again" in capsys.readouterr().err
    (folder / "optional" / "data" / "split.json").write_text('{"train": []}')
    assert printed() == 2
    assert "is of other weights and split; remove it" in capsys.readouterr().err


def test_a_search_in_two_stages_that_opens_every_cluster_finds_what_the_exhaustive_one_does(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Clusters are opened until they hold so many photos.
    monkeypatch.setattr("sketch_search.training.evaluation.answers.TOP", 2)
    kinds, index = np.eye(len(SHAPES), dtype=np.float32), list(SHAPES).index
    monkeypatch.setattr(tables, "data_folder", lambda: folder)
    monkeypatch.setattr(tables, "read_clip_vectors", lambda _, photos: {p: kinds[index(p.label)] for p in photos[1:]})
    ways = [(1, 1, "clip"), (4, 4, "clip"), (4, 1, "clip"), (4, 1, "map")]
    rows = "".join(
        f'[[row]]\nname = "{n} of {c} by {by}"\nrecipe = "RECIPE"\nlearns = false\nmethod = "rn"\n'
        f'measure = {{ clusters = {c}, nprobe = {n}, by = "{by}" }}\n'
        for c, n, by in ways
    )
    write_table(folder, f'title = "Two stages"\ncolumns = ["map_100", "precision_100"]\n{rows}')
    assert run(folder, "--json") == 0
    exhaustive, opened, one, mapped = json.loads(capsys.readouterr().out)["rows"]
    assert f"learnt from the {exhaustive['photos'] - 1} photos with CLIP's vectors" in mapped["about"][0]
    assert mapped["costs"]["purity"] >= one["costs"]["purity"], "vectors of the kinds make purer clusters"
    assert opened["figures"] == exhaustive["figures"]
    assert opened["costs"]["pairs"] == exhaustive["costs"]["pairs"] + 4 == exhaustive["photos"] + 4
    assert one["costs"]["pairs"] < exhaustive["photos"]
    assert one["figures"]["precision_100"]["value"] <= exhaustive["figures"]["precision_100"]["value"]
    assert opened["costs"]["distance from centroids"] < exhaustive["costs"]["distance from centroids"]
    assert exhaustive["costs"]["purity"] == pytest.approx(1 / len(SHAPES)), "each shape has as many photos"
    assert exhaustive["costs"]["purity"] < opened["costs"]["purity"] <= 1
    matcher = load(next((folder / "runs").rglob("final.safetensors")), dtype="float32", variants=1)
    corpus = read_class_folders(folder / "data")
    ranked = np.argsort(-score_matrices(matcher, corpus, ["rn"])["rn"], axis=1, kind="stable")
    hits = np.take_along_axis(relevance(corpus), ranked, axis=1)[:, :2]
    first, second = hits.T
    assert exhaustive["figures"]["map_100"]["value"] == pytest.approx((first + second * (1 + first) / 2).mean() / 2)
    by_report = np.where(first & second, 1, np.where(first, 1, second / 2)).mean()
    assert exhaustive["costs"]["mAP@2 by the report's code"] == pytest.approx(by_report)
    write_table(folder, f'title = "Two stages"\ncolumns = ["map_100"]\nplot = "elbow"\n{rows.replace("= 4,", "= 99,")}')
    (folder / "figure.svg").write_text("not ours")
    assert run(folder, "--plot", folder / "figure.svg") == 2
    found = capsys.readouterr()
    assert "figure.svg was not written by this program" in found.err
    assert (folder / "figure.svg").read_text() == "not ours"
    assert "photos cannot make 99 clusters; name a folder of more photos)" in found.out


def test_a_shipped_checkpoint_is_measured_with_clusters_by_clip_if_there_is_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    networks.tiny_checkpoint(folder / "shipped.safetensors")
    monkeypatch.setattr(tables, "PHOTO_SIDE", folder / "photo-side.safetensors")
    rows = "".join(
        f'[[row]]\nname = "{n}"\ncheckpoint = "shipped"\nmeasure = {{ clusters = {n}, each = 2, clip = "{clip}" }}\n'
        for n, clip in ((1, networks.saved_clip(folder / "clip")), (3, folder / "clip"), (4, "ViT-S-32-alt@nowhere"))
    )
    title = 'title = "Two stages"\ncolumns = ["map_100", "precision_100"]\n'
    write_table(folder, title + rows)
    assert run(folder) == 0
    told = capsys.readouterr().out
    assert "- Clusters are by CLIP from clip." in told
    assert "- Clusters are by [Ret]: there are no CLIP weights at nowhere" in told
    assert f"In all rows: ranks by rn, queries {2 * len(SHAPES)}, " in told
    assert "by the report's code, plain precision over the relevant photos that were found" in told
    assert "Seeds" not in told


def test_a_shipped_checkpoint_is_measured_at_other_keep_rates(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    networks.tiny_checkpoint(folder / "shipped.safetensors", keep_sketch=1.0, keep_photo=1.0)
    monkeypatch.setattr(tables, "PHOTO_SIDE", folder / "photo-side.safetensors")
    rates = {"as it is": "1.0", "the same": "1.0", "half": "0.5"}
    rows = (
        f'[[row]]\nname = "{name}"\ncheckpoint = "shipped"\nmethod = "rn"\n'
        + (f"set = {{ network = {{ keep_sketch = {rate}, keep_photo = {rate} }} }}\n" if name != "as it is" else "")
        for name, rate in rates.items()
    )
    write_table(folder, 'title = "Rates"\ncosts = true\n' + "".join(rows))
    assert run(folder, "--json") == 0
    whole, same, half = json.loads(capsys.readouterr().out)["rows"]
    assert (whole["figures"], whole["costs"]) == (same["figures"], same["costs"])
    assert half["costs"]["M a pair"] < whole["costs"]["M a pair"]
    assert half["figures"] != whole["figures"]


def test_unknown_rows_and_missing_data_are_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, name="three") == 2
    assert "there is no table three; name one of small, two" in capsys.readouterr().err
    assert run(folder, "--row", "other") == 2
    assert "two has no row other; its rows are not trained, trained" in capsys.readouterr().err
    write_table(folder, TABLE.replace("costs = true", 'measure = { protocol = "fine-grained" }'))
    assert run(folder, "--row", "not trained") == 2
    assert "no sketch is named after a photo" in capsys.readouterr().err
    write_table(folder, TABLE)
    fewer = shutil.copytree(folder / "data", folder / "fewer")
    shutil.rmtree(fewer / "photo" / SHAPES[3])
    assert run(folder, "--row", "trained", "--data", fewer) == 2
    assert f"there are no photos of {SHAPES[3]}" in capsys.readouterr().err


PAGE = CHECKOUT / "docs" / "research" / "networks.md"
KEPT = PAGE.with_name("runs")


@pytest.mark.parametrize("name", sorted(path.stem for path in KEPT.glob("*.json")))
def test_a_table_of_the_page_that_is_drawn_from_its_sheet_is_that(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    shutil.copyfile(PAGE, copy)
    assert main(["table", name, "--sheets", str(KEPT), "--kept", "--page", str(copy)]) == 0
    assert copy.read_text() == PAGE.read_text()


@pytest.mark.parametrize("path", sorted(tables.TABLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_table_has_usable_recipes(path: Path) -> None:
    table = tables.read_table(path.stem)
    for row in table.row:
        assert bool(row.recipe) != bool(row.checkpoint)
        if row.recipe:
            recipe = table.recipe(row, row.seeds[0])
            # A network that learns everything at once needs more than what compares networks.
            assert recipe.steps * recipe.pictures <= (60_000 if path.stem == "zse-tiny" else 16_000)
        else:
            assert tables.PHOTO_SIDE.with_name(f"{row.checkpoint}.safetensors").is_file()
        tables.Measure(**merge(table.measure, row.measure))


SHARED = "steps = 4\nbf16 = false\nsave_every = 2\nevaluate_every = 2\n"
ON_VIT = (
    f'backbone = "vit_tiny_patch16_224"\n{SHARED}[network]\nimage_size = 64\n'
    "[network.sizes]\nembed_dim = 32\ndepth = 4\nnum_heads = 2\nmlp_ratio = 2.0\n"
)
ZSE = f'preset = "zse-ti16"\n{SHARED}[network]\nimage_size = 64\n{SIZES}\n[samples]\ncount = 3\n'
ANCHORS = 'method = "sketch-an-anchor"\nbatch = 3\n' + ON_VIT.replace("[network]", "[network]\nunits = 40")
CLIP_AT = 'method = "clip-at"\nbatch = 4\ncategories = 2\n'
ON_CLIP = f'{CLIP_AT}backbone = "clip"\n{SHARED}[network]\nname = "small-clip-at"\n'
FINE = f'{CLIP_AT}level = "fine-grained"\n{ON_VIT}'
WORDS, OTHER_RUN = ("--words", "words.txt"), ("--run", "other")


def write_words(words: Sequence[str]) -> None:
    from gensim.models import KeyedVectors

    table = KeyedVectors(12)
    table.add_vectors(words, networks.randn(len(words), 12).numpy())
    table.save_word2vec_format("words.txt")


def prepare(recipe: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes pictures, words and a backbone in a folder, and goes there. Returns the command that trains by a recipe."""
    monkeypatch.chdir(folder)
    # An evaluation compares its pictures with those, once it has unpacked and listed them all.
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    networks.write_class_folders(Path("mine"), seeds=range(2), drawn=2)
    save_file(networks.small_backbone(), "vit.safetensors")
    write_words([*SHAPES, "egg", "kite"])
    Path("small.toml").write_text(recipe)
    backbone = str(networks.saved_clip(Path("clip"), networks.READING)) if recipe == ON_CLIP else "vit.safetensors"
    return ["train", "small.toml", "--backbone", backbone, "--data", "mine"]


@pytest.mark.parametrize(
    ("recipe", "options", "told", "logged", "described", "wrong", "refused"),
    [
        (
            *(ZSE, (), "training on 28 sketches and 14 photos of 7 classes", "val_rn", "zse-ti16"),
            *(("--set", "steps"), "write KEY=VALUE, such as optimiser.warmup=20"),
        ),
        (
            *(ANCHORS, WORDS, "word anchors from words.txt", "val_ret", "sketch-an-anchor"),
            *(OTHER_RUN, "words.txt lack"),
        ),
        (
            *(ON_CLIP, (), "classes from CLIP's text encoder, 'a photo of a [CLASS]'", "val_ret"),
            "3 prompts and LayerNorms separate for sketches and photos",
            *((*WORDS, *OTHER_RUN), "CLIP reads the names of classes itself"),
        ),
        (
            *(FINE, WORDS, "classes from words.txt", "val_acc_1"),
            "3 prompts and LayerNorms shared by sketches and photos",
            *(OTHER_RUN, "in the recipe's table [names], such as \""),
        ),
    ],
    ids=["ZSE-SBIR", "Sketch-an-Anchor", "CLIP-AT on CLIP", "CLIP-AT by pairs"],
)
def test_one_command_trains_what_can_be_described_measured_indexed_and_explained(
    recipe: str,
    options: Sequence[str],
    told: str,
    logged: str,
    described: str,
    wrong: Sequence[str],
    refused: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [*prepare(recipe, tmp_path, monkeypatch), *options]
    assert main([*command, "--until", "2"]) == 0
    said = capsys.readouterr().out
    assert told in said
    assert "stopped at step 2 of 4; the same command continues from here" in said
    assert main(command) == 0
    assert "wrote runs/small/final.safetensors; mAP@all on validation classes" in capsys.readouterr().out
    log = [json.loads(line) for line in Path("runs/small/log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if logged in entry] == [2, 4]
    file = Path("runs/small/final.safetensors")
    assert read_metadata(file)["origin"] == f"trained by recipe small.toml from {command[3]}"

    assert model(["info", str(file)]) == 0
    info = capsys.readouterr().out
    assert described in info
    assert "classes seen:        trained on 7, chosen on 2" in info
    matcher = load(file)
    assert matcher.methods == (("rn", "ret", "fused") if recipe == ZSE else ("ret",))
    assert main(["evaluate", "--weights", str(file), "--data", "mine", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["methods"]
    assert set(measured) == {*matcher.methods, *(f"{method}+diffusion" for method in matcher.methods)}
    build(tmp_path / "index", BuildRequest([Path("mine/photo")]), matcher)
    with open_index(tmp_path / "index", matcher) as index:
        assert index.photo_count == 2 * len(SHAPES)
        assert len(Searcher(index, matcher).find_sketch(k=2).results) == 2
    explained = matcher.explain(drawing("star", 96, 1), drawing("star", 96, 2))
    assert explained.sketch.blocks.shape[0] == explained.photo.blocks.shape[0] > 1
    assert (explained.relation_score is None) == ("rn" not in matcher.methods)
    options = ["--run", "further", "--seed", "9", "--set", "steps=2", "--set", "optimiser.warmup=1"]
    further = ("--start", str(file), *options)
    assert main([*command, *further]) == 0
    last = read_metadata(Path("further/final.safetensors"))
    assert last["origin"] == "trained by recipe small.toml from final.safetensors"
    assert last["classes"] == read_metadata(file)["classes"]
    assert main(["evaluate", "--weights", "further/final.safetensors", "--data", "mine", "--method", "ret"]) == 0
    write_words(["egg", "kite"])
    assert main([*command, *wrong]) == 2
    assert refused in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize(
    ("recipe", "options"),
    [(ZSE, ()), (ZSE, ("--set", "samples.pairs=two")), (ANCHORS, WORDS), (ON_CLIP, ()), (FINE, WORDS)],
)
def test_a_step_computes_on_the_device_that_the_training_is_told(
    recipe: str, options: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = set[str]()
    # A device without numbers and without autocast: whatever is left on the CPU cannot be computed with what is there.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())

    def compute(trainer: Trainer[torch.nn.Module], *_: object) -> None:
        devices.update(loss.device.type for loss in trainer.losses().values())

    monkeypatch.setattr(Trainer, "run", compute)
    assert main([*prepare(recipe, tmp_path, monkeypatch), *options, "--device", "meta"]) == 0
    assert devices == {"meta"}
