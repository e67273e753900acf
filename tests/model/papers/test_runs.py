"""The training loop, with a training of a single layer."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from model.errors import ModelError
from model.network import RetNetwork
from model.papers.recipe import ZseOptimiser, ZseRecipe
from model.papers.runs import Trainer, warmed_cosine


class Fitting(Trainer[nn.Linear]):
    """Fits random numbers; a step may get a signal."""

    def __init__(
        self, folder: Path, recipe: ZseRecipe, origin: str = "a", signals: dict[int, int] | None = None
    ) -> None:
        self.signals = signals or {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = nn.Linear(3, 2)
        super().__init__(recipe, network, folder, origin)
        self.dtype = torch.bfloat16

    @property
    def trained(self) -> RetNetwork:
        raise NotImplementedError

    def make_optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([{"params": list(self.network.parameters()), "rate": 0.1}])

    def losses(self) -> dict[str, torch.Tensor]:
        if self.step in self.signals:
            os.kill(os.getpid(), self.signals[self.step])
        with self.autocast():
            made = self.network(torch.randn(5, 3))
        return {"fit": made.float().square().mean(), "size": 0.1 * self.network.weight.square().sum()}


def values(loop: Fitting) -> list[torch.Tensor]:
    return [*loop.network.parameters(), *loop.average.parameters()]


def steps_of(loop: Fitting) -> list[int]:
    return [json.loads(line)["step"] for line in loop.log_path.read_text().splitlines()]


OPTIMISER = ZseOptimiser(warmup=2, last=0.1, average=0.5, clip=1.0)
RECIPE = ZseRecipe(preset="zse-ti16", steps=7, seed=3, optimiser=OPTIMISER, save_every=3, evaluate_every=3)


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = Fitting(tmp_path / "whole", RECIPE)
    whole.run()
    for stop in (1, 4, 5):
        Fitting(tmp_path / "parts", RECIPE).run(until=stop)
    with (tmp_path / "parts" / "log.jsonl").open("a") as log:
        log.write('{"step": 6}\n{"step": 7, "fi')  # as a kill after the last save leaves it
    parts = Fitting(tmp_path / "parts", RECIPE)
    assert (parts.step, steps_of(parts)) == (5, [1, 2, 3, 4, 5])
    parts.run()
    assert steps_of(parts) == steps_of(whole) == list(range(1, 8))
    assert all(torch.equal(one, other) for one, other in zip(values(whole), values(parts), strict=True))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_the_state_and_acts_as_usual(number: int, tmp_path: Path) -> None:
    whole = Fitting(tmp_path / "whole", RECIPE)
    whole.run()
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Fitting(tmp_path / "parts", RECIPE, signals={1: number}).run()
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    rest = Fitting(tmp_path / "parts", RECIPE)
    assert (rest.step, steps_of(rest)) == (2, [1, 2])
    rest.run()
    assert all(torch.equal(one, other) for one, other in zip(values(whole), values(rest), strict=True))


def test_a_state_of_another_origin_is_not_gone_on_with(tmp_path: Path) -> None:
    Fitting(tmp_path, RECIPE).run(until=1)
    with pytest.raises(ModelError, match="belongs to another recipe, backbone or data; name another folder with --run"):
        Fitting(tmp_path, RECIPE, origin="b")


def test_without_an_average_over_steps_the_average_is_the_network(tmp_path: Path) -> None:
    loop = Fitting(tmp_path, ZseRecipe(preset="zse-ti16", steps=2, optimiser=ZseOptimiser(average=0.0)))
    loop.run()
    assert all(torch.equal(*pair) for pair in zip(loop.average.parameters(), loop.network.parameters(), strict=True))


def test_a_training_that_diverges_is_stopped_with_a_sentence(tmp_path: Path) -> None:
    loop = Fitting(tmp_path, RECIPE)
    nn.init.constant_(loop.network.weight, math.inf)
    with pytest.raises(ModelError, match="training diverged at step 0; lower the learning rates"):
        loop.run()
    assert not loop.state_path.exists()


def test_a_rate_rises_linearly_and_falls_by_a_cosine() -> None:
    shares = [warmed_cosine(step, 1500, 150, 0.2) for step in range(1500)]
    assert shares[0] == pytest.approx(1 / 150)
    assert shares[149] == shares[150] == pytest.approx(1)
    assert shares[825] == pytest.approx(0.6)
    assert shares[1499] == pytest.approx(0.2, rel=1e-3)
    assert warmed_cosine(90, 100, 2, 1.0) == 1
