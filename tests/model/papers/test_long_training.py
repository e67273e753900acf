"""The training of `test_training`, fifteen times as long: all losses, two input sizes, photos as line drawings."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from model.evaluation.categories import evaluate
from model.papers.pictures import training_set
from model.papers.recipe import Batch, Weights, ZseOptimiser
from model.papers.zse.trainer import ZseTrainer
from model.training.calibration import trained_matcher
from tests.learning import small_backbone, small_recipe, write_patterns


@pytest.mark.soak
def test_minutes_of_training_find_most_pictures_it_never_saw(tmp_path: Path) -> None:
    data = training_set(write_patterns(tmp_path / "seen", seeds=range(24)), tmp_path / "pixels")
    fresh = write_patterns(tmp_path / "fresh", seeds=range(100, 112))
    recipe = dataclasses.replace(
        small_recipe((64, 1000), (96, 500)),
        weights=Weights(bank=1.0, contrast=1.0, labels=0.1, teacher=0.1, relation=1.0),
        batch=Batch(classes=6, near=0.5, sketches=2, drawn=4),
        optimiser=ZseOptimiser(encoder_rate=1e-3, head_rate=2e-3, warmup=20, average=0.98),
        save_every=100,
    )
    trainer = ZseTrainer(recipe, data, small_backbone(), tmp_path / "run")
    before = evaluate(trained_matcher(trainer.average), fresh)
    trainer.run()
    after = evaluate(trained_matcher(trainer.average), fresh)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]

    def total(entries: list[dict[str, float]]) -> float:
        return sum(entry[name] for entry in entries for name in ("bank", "contrast", "relation")) / len(entries)

    first, last = total(log[:50]), total(log[-50:])
    print(f"loss {first:.2f} -> {last:.2f}")
    assert last < 0.7 * first
    for method in ("ret", "rn"):
        was, now = (result.methods[method].overall.map_all for result in (before, after))
        print(f"mAP@all of pictures never seen, by {method}: {was:.3f} -> {now:.3f}")
        assert now > max(0.8, was + 0.2)
