"""A training long enough to teach a ViT from nothing what drawn things look like."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from random import Random

import pytest
import timm
import torch

from indexer.samples import THINGS, draw_photo
from indexer.samples.scene import sketch
from model.calibration import trained_matcher
from model.config import preset
from model.corpus import Corpus, read_class_folders
from model.evaluation import evaluate
from model.recipe import Batch, Optimiser, Phase, Recipe, Weights
from model.training import Trainer
from model.training_set import training_set


def write_things(folder: Path, numbers: range) -> Corpus:
    """``folder``/sketch/<thing>/* and ``folder``/photo/<thing>/*, one of each a number."""
    for name, parts in THINGS.items():
        for half in ("sketch", "photo"):
            (folder / half / name).mkdir(parents=True)
        for number in numbers:
            chance = Random(f"{name} drawn {number}")
            sketch(parts(chance), chance).save(folder / "sketch" / name / f"{number:03}.png")
            draw_photo(name, number + 1).save(folder / "photo" / name / f"{number:03}.png")
    return read_class_folders(folder)


@pytest.mark.soak
def test_five_minutes_of_training_teach_a_random_vit_to_find_drawn_things(tmp_path: Path) -> None:
    data = training_set(write_things(tmp_path / "seen", range(12)), tmp_path / "pixels")
    fresh = write_things(tmp_path / "fresh", range(100, 104))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = timm.create_model("vit_tiny_patch16_224", pretrained=False).state_dict()
    recipe = Recipe(
        preset="zse-ti16",
        phases=(Phase(64, 500),),
        network={"dropout": 0.0},
        # What a random teacher sees and believes is not worth learning.
        weights=Weights(bank=0.0, contrast=1.0, labels=0.0, teacher=0.0, relation=1.0),
        batch=Batch(classes=20, near=0.0, sketches=1, drawn=0),
        optimiser=Optimiser(encoder_rate=3e-4, head_rate=1e-3, warmup=20, average=0.98),
        bf16=False,
    )
    trainer = Trainer(recipe, data, backbone, tmp_path / "run")
    before = evaluate(trained_matcher(trainer.average), fresh)
    trainer.run()
    assert dataclasses.replace(preset("zse-ti16"), image_size=64, dropout=0.0) == dataclasses.replace(
        trainer.network.config, methods=("ret",), best_method="ret"
    )
    after = evaluate(trained_matcher(trainer.average), fresh)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]

    def total(entries: list[dict[str, float]]) -> float:
        return sum(entry[name] for entry in entries for name in ("contrast", "relation")) / len(entries)

    first, last = total(log[:25]), total(log[-25:])
    print(f"loss {first:.2f} -> {last:.2f}")
    assert last < 0.8 * first
    for method in ("ret", "rn"):
        was, now = (result.methods[method].overall.map_all for result in (before, after))
        print(f"mAP@all of pictures never seen, by {method}: {was:.3f} -> {now:.3f}")
        assert now > was + 0.1
