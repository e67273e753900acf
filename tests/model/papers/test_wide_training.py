"""Trainings that also see classes without photos or without sketches, and line drawings of photos."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.checkpoint.file import load_network, save_checkpoint
from model.datasets.corpus import DATA_VARIABLE, Corpus, Picture
from model.datasets.everything import GroupedTask
from model.datasets.fresh import FRESH_PHOTOS, is_fresh
from model.datasets.further import Further, lines_of, read_imagenet, read_lines, too_near
from model.errors import ModelError
from model.network.backbone import from_backbone
from model.network.zse import Network
from model.papers.pictures import TrainingSet, training_corpora, training_set
from model.papers.recipe import Batch, Weights, ZseOptimiser
from model.papers.runs import Run
from model.papers.trainings import train
from model.papers.zse.objectives import mates_loss
from model.papers.zse.prior import RET_WEIGHTS, best_weight, with_prior
from model.papers.zse.teacher import named_targets
from model.papers.zse.trainer import ZseTrainer
from tests.archives import pack
from tests.learning import NETWORK, small_backbone, small_recipe, toml
from tests.pictures import SHAPES, drawing, encoded, photo

BOTH, OTHER, HELD, UNSEEN = SHAPES[:4]
SKETCHED, SHOWN, NEAR, ZIGZAG = "anvil", "dolphin", "leaf", "zigzag"
FRAME = "574_golf_ball"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Optional data: two classes to train on, one of validation, one unseen; further ones; line drawings."""
    folder = tmp_path_factory.mktemp("shared")
    pictures = {
        f"first/{half}/{label}/{seed:03}.png": encoded(make(label, 64, seed))
        for label in (BOTH, OTHER, HELD, UNSEEN)
        for half, make in (("sketch", drawing), ("photo", photo))
        for seed in range(16)
    }
    pack(folder / "data" / "first.tar.gz", pictures)
    (folder / "data" / "split.json").write_text(json.dumps({"train": [BOTH, OTHER], "val": [HELD], "unseen": [UNSEEN]}))
    more = folder / "data" / "more"
    sketch, shown = encoded(drawing("star", 64, 1)), encoded(photo("star", 64, 1))
    pack(
        more / "sketches.tar.gz",
        {f"tuberlin/sketch/{label}/{n}.png": sketch for label in (SKETCHED, NEAR, ZIGZAG) for n in range(6)},
    )
    pack(more / "ship.tar.gz", {f"pacs/photo/{SHOWN}/{n}.png": shown for n in range(6)})
    pack(more / "imagenet1k.tar.gz", {f"imagenet1k/photo/{FRAME}/{n}.png": shown for n in range(6)})
    lines = {f"first/lines/{label}/{seed:03}.png": sketch for label in (BOTH, HELD) for seed in range(16)}
    pack(more / "lines.tar.gz", lines | {f"imagenet1k/lines/{FRAME}/{n}.png": sketch for n in range(6)})
    flags = {"near_unseen": [NEAR], "near_val": [], "abstract": [ZIGZAG]}
    split = {"more": [SKETCHED, NEAR, ZIGZAG], "ship": [SHOWN], "flags": flags}
    (more / "split.json").write_text(json.dumps(split))
    return folder


@pytest.fixture(autouse=True)
def data(shared: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DATA_VARIABLE, str(shared))
    monkeypatch.setattr("model.datasets.corpus.platformdirs.user_cache_path", lambda _: shared / "cache")
    return shared


def tiny_start() -> Network:
    """An untrained network such as these recipes train."""
    return from_backbone(WIDE.config(64), small_backbone())


WIDE = dataclasses.replace(
    small_recipe((64, 4)),
    split=("train", "more", "imagenet1k"),
    batch=Batch(classes=2, near=0.5, sketches=2, drawn=2, lines=3, further=1),
    weights=Weights(mates=0.5),
)


def wide_set(tmp_path: Path) -> TrainingSet:
    pictures = training_corpora(None, WIDE)
    return training_set(pictures.training, tmp_path / "pixels", pictures.further)


def test_classes_with_sketches_or_photos_alone_are_beside_those_with_both() -> None:
    pictures = training_corpora(None, WIDE)
    assert set(pictures.training.labels) == {BOTH, OTHER}
    assert {p.label for p in pictures.further.sketches} == {SKETCHED}, "not what is near an unseen class, or abstract"
    kept = [f"{n}" for n in range(6) if not is_fresh(FRAME, f"{n}", FRESH_PHOTOS)]
    assert [p.path.stem for p in pictures.further.photos] == kept, "no training sees the fresh ones"
    trained = {(p.label, p.path.stem) for p in (*pictures.training.photos, *pictures.further.photos)}
    drawn = {(p.label, p.path.stem) for p in pictures.further.lines}
    assert drawn == {pair for pair in trained if pair[0] in (BOTH, FRAME)}


def test_without_lines_and_further_classes_a_batch_needs_nothing_more() -> None:
    plain = dataclasses.replace(WIDE, batch=Batch(), split=("train", "more", "imagenet1k"))
    assert training_corpora(None, plain).further == Further()


def test_what_the_shipped_network_alone_may_see_comes_with_its_part() -> None:
    pictures = training_corpora(None, dataclasses.replace(WIDE, split=("train", "val", "unseen", "more", "ship")))
    assert {p.label for p in pictures.further.sketches} == {SKETCHED, NEAR}
    assert {p.label for p in pictures.further.photos} == {SHOWN}
    assert UNSEEN in pictures.training.labels
    assert pictures.validation is None


def test_near_classes_are_left_out_unless_their_part_is_trained_on(shared: Path) -> None:
    assert too_near(shared, ("train",)) == {NEAR, ZIGZAG}
    assert too_near(shared, ("train", "ship")) == {ZIGZAG}


def test_a_line_drawing_belongs_to_the_photo_of_its_set_class_and_name(shared: Path) -> None:
    lines, photos = read_lines(shared), read_imagenet(shared).photos
    found, numbers = lines_of(lines, photos)
    assert [photos[n].path.stem for n in numbers] == [line.path.stem for line in found] == [str(n) for n in range(6)]


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lines\.tar\.gz"):
        read_lines(tmp_path)
    with pytest.raises(ModelError, match="flags"):
        too_near(tmp_path, ("train",))


def test_rows_of_further_pictures_follow_those_of_the_classes_with_both(tmp_path: Path) -> None:
    data = wide_set(tmp_path)
    classes = sum(len(rows) for rows in data.sketch_rows)
    assert data.further == (SKETCHED,)
    assert data.further_rows[0].tolist() == list(range(classes, len(data.sketches)))
    assert (data.photo_labels[sum(len(rows) for rows in data.photo_rows) :] == -1).all()
    assert data.lines.shape == (len(data.line_photos), 1, 224, 224)


def test_while_it_trains_it_is_measured_in_a_gallery_of_everything(shared: Path, tmp_path: Path) -> None:
    boxes = {"1.jpg": [["aeroplane", False, 0.0, 0.0, 0.5, 0.5]]}
    everyday = {"voc2007/1.jpg": encoded(photo("star", 64, 1)), "voc2007/labels.json": json.dumps(boxes).encode()}
    pack(shared / "data" / "more" / "everyday.tar.gz", everyday)
    (tmp_path / "recipe.toml").write_text(
        'preset = "zse-ti16"\nsplit = ["train", "more", "imagenet1k"]\nbf16 = false\nevaluate_everything = 2\n'
        f"[network]\n{toml(NETWORK)}\n[batch]\nclasses = 2\ndrawn = 0\nlines = 2\nfurther = 1\n"
        "[[phases]]\nimage_size = 64\nsteps = 2\n"
    )
    save_file(small_backbone(), tmp_path / "vit.safetensors")
    said: list[str] = []
    run = Run(
        tmp_path / "recipe.toml", str(tmp_path / "vit.safetensors"), tmp_path / "run", tmp_path / "out.safetensors"
    )
    assert train(run, said.append)
    assert "6 sketches without photos" in said[0]
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    network = load_network(tmp_path / "out.safetensors")
    assert network.prior is not None
    assert 0 < len(network.prior.prototypes) == network.config.prototypes
    assert float(network.prior.ret_weight) in RET_WEIGHTS
    assert {"val_rn", "val_ret", "trained_p10", "unseen_p10", "harmonic_p10"} <= set(last)
    assert 0 <= last["harmonic_p10"] <= max(last["trained_p10"], last["unseen_p10"]) <= 1


def test_a_training_that_starts_from_a_network_with_a_prior_makes_its_prior_anew(tmp_path: Path) -> None:
    pictures = training_corpora(None, WIDE)
    first = with_prior(tiny_start(), pictures.training, pictures.further, 1.5, 8.0)
    save_checkpoint(first, tmp_path / "start.safetensors")
    network = toml(NETWORK)
    (tmp_path / "all.toml").write_text(
        'preset = "zse-ti16"\nsplit = ["train", "val"]\nbf16 = false\n'
        f"[network]\n{network}\n[batch]\nclasses = 2\ndrawn = 0\n[[phases]]\nimage_size = 64\nsteps = 1\n"
    )
    save_file(small_backbone(), tmp_path / "vit.safetensors")
    run = Run(
        tmp_path / "all.toml",
        str(tmp_path / "vit.safetensors"),
        tmp_path / "run",
        tmp_path / "out.safetensors",
        start=tmp_path / "start.safetensors",
    )
    assert train(run, list[str]().append)
    second = load_network(tmp_path / "out.safetensors")
    assert first.prior is not None
    assert second.prior is not None
    assert float(second.prior.ret_weight) == 1.5
    assert float(second.prior.relation_weight) == 8.0
    assert not torch.equal(second.prior.prototypes, first.prior.prototypes)


def test_a_training_goes_on_when_its_start_has_got_a_prior_meanwhile(tmp_path: Path) -> None:
    pictures = training_corpora(None, WIDE)
    plain = tiny_start()
    ZseTrainer(WIDE, wide_set(tmp_path), small_backbone(), tmp_path / "run", plain).run(until=1)
    other = with_prior(plain, pictures.training, pictures.further, 1.5, 8.0)
    assert ZseTrainer(WIDE, wide_set(tmp_path), small_backbone(), tmp_path / "run", other).step == 1


def test_the_prior_counts_as_much_as_helps_new_things_and_hardly_harms_trained_ones() -> None:
    def picture(label: str, number: int) -> Picture:
        return Picture(Path(f"{label}-{number}.png"), label, "")

    photos = tuple(picture(label, n) for label in ("old", "new") for n in range(10))
    queries = (picture("old", 0), picture("new", 0))
    groups = {"trained": frozenset({"old"}), "unseen": frozenset({"new"})}
    large = GroupedTask(Corpus(queries, photos), groups, ("trained", "unseen"))
    # Photos of what was trained are ahead by 2 for the one sketch, and by 1 for the other.
    priors = np.array([1.0] * 10 + [0.0] * 10)
    scores = np.array([[2.0] * 10 + [0.0] * 10, [1.0] * 10 + [0.0] * 10])
    weight, before, after = best_weight(scores, priors, (0.0, 1.5, 3.0), large)
    assert (weight, before, after) == (1.5, 0.0, 1.0)
    assert best_weight(scores, priors, (0.0, 3.0), large)[0] == 0.0, "trained things would be lost"


def test_the_last_blocks_learn_at_their_own_rate(tmp_path: Path) -> None:
    late = ZseOptimiser(
        encoder_rate=1e-3, head_rate=2e-3, warmup=1, stable=1.0, late_blocks=1, late_rate=0.0, decay=0.0
    )
    trainer = ZseTrainer(
        dataclasses.replace(WIDE, optimiser=late), wide_set(tmp_path), small_backbone(), tmp_path / "run"
    )
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    trainer.train_step()
    changed = {name for name, value in trainer.network.named_parameters() if not torch.equal(value, before[name])}
    assert not any(name.startswith("encoder.blocks.3.") for name in changed)
    assert any(name.startswith("encoder.blocks.2.") for name in changed)


def test_mates_are_pulled_together_and_away_from_others() -> None:
    together = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0], [-1.0, 0.0]])
    apart = together[torch.tensor([0, 2, 1, 3, 4])]
    labels = torch.tensor([0, 0, 1, 1, 2])
    near, far = (float(mates_loss(ret, labels, 0.1)) for ret in (together, apart))
    assert 0 <= near < 0.01 < far
    chance = float(mates_loss(torch.ones(5, 2), labels, 0.1))
    assert chance == pytest.approx(torch.tensor(4.0).log().item())


def test_a_class_is_told_by_any_of_its_names_in_imagenet() -> None:
    targets = named_targets(["goldfish", "tiger_shark", "crane", "spreadsheet"], 1000)
    assert targets[:3].sum(dim=1).tolist() == pytest.approx([1, 1, 1])
    assert int(targets[0].argmax()) == 1
    assert int((targets[2] > 0).sum()) == 2, "a bird and a machine"
    assert not targets[3].any()
    assert not named_targets(["goldfish"], 10).any(), "another classifier has other classes"
