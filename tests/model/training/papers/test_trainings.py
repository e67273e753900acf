"""A recipe of each method is trained by one command to a checkpoint that every other command takes."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sketch_search.indexer import BuildRequest, build, open_index
from sketch_search.model import load
from sketch_search.model.engine import read_metadata
from sketch_search.model.training.commands import main
from sketch_search.model.training.corpus import DATA_VARIABLE
from sketch_search.model.training.papers.trainer import Trainer
from tests.learning import NETWORK, small_backbone, toml, write_class_folders
from tests.networks import READING, randn, saved_clip
from tests.pictures import SHAPES, drawing

SHARED = "steps = 4\nbf16 = false\nsave_every = 2\nevaluate_every = 2\n"
ON_VIT = (
    f'backbone = "vit_tiny_patch16_224"\n{SHARED}[network]\nimage_size = 64\n'
    "[network.sizes]\nembed_dim = 32\ndepth = 4\nnum_heads = 2\nmlp_ratio = 2.0\n"
)
ZSE = f'preset = "zse-ti16"\n{SHARED}[network]\nimage_size = 64\n{toml(NETWORK)}\n[samples]\ncount = 3\n'
ANCHORS = 'method = "sketch-an-anchor"\nbatch = 3\n' + ON_VIT.replace("[network]", "[network]\nunits = 40")
CLIP_AT = 'method = "clip-at"\nbatch = 4\ncategories = 2\n'
ON_CLIP = f'{CLIP_AT}backbone = "clip"\n{SHARED}[network]\nname = "small-clip-at"\n'
FINE = f'{CLIP_AT}level = "fine-grained"\n{ON_VIT}'
WORDS, OTHER_RUN = ("--words", "words.txt"), ("--run", "other")


def write_words(words: Sequence[str]) -> None:
    from gensim.models import KeyedVectors

    table = KeyedVectors(12)
    table.add_vectors(words, randn(len(words), 12).numpy())
    table.save_word2vec_format("words.txt")


def prepare(recipe: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes pictures, words and a backbone in a folder, and goes there. Returns the command that trains by a recipe."""
    monkeypatch.chdir(folder)
    # An evaluation compares its pictures with those, once it has unpacked and listed them all.
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    write_class_folders(Path("mine"), seeds=range(2), drawn=2)
    save_file(small_backbone(), "vit.safetensors")
    write_words([*SHAPES, "egg", "kite"])
    Path("small.toml").write_text(recipe)
    backbone = str(saved_clip(Path("clip"), READING)) if recipe == ON_CLIP else "vit.safetensors"
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

    assert main(["info", str(file)]) == 0
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
