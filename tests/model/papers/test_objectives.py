"""Steps of trainings: the paper's quadruplets, and all pairs of a batch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from model.checkpoint.file import load_network, save_checkpoint
from model.evaluation import measure, score_matrices
from model.network.config import Modality
from model.network.layers.encoder import EncoderTrace
from model.network.tokens import Tokens
from model.network.zse import Network
from model.papers.pictures import TrainingSet, training_set
from model.papers.recipe import Quadruplets, ZseOptimiser, ZseRecipe
from model.papers.zse.objectives import MATCH, NO_MATCH, QuadrupletObjective
from model.papers.zse.trainer import ZseTrainer
from model.training import calibrated, trained_matcher
from tests.learning import small_backbone, small_recipe, write_class_folders, write_patterns
from tests.pictures import SHAPES

WITHOUT_SELECTION = {"keep_sketch": 1.0, "keep_photo": 1.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    corpus = write_class_folders(tmp_path_factory.mktemp("training"), seeds=range(4))
    return training_set(corpus, tmp_path_factory.mktemp("pixels"))


def quadruplets(recipe: ZseRecipe, how: Quadruplets, **network: object) -> ZseRecipe:
    return dataclasses.replace(recipe, quadruplets=how, network={**recipe.network, **network})


class Told(Network):
    """Remembers what it was asked to encode, and answers with pixels as tokens: two of them, and [Ret] in front."""

    def encode(self, images: torch.Tensor, modality: str, trace: object = None) -> Tokens:
        self.seen = {**getattr(self, "seen", {}), modality: images}
        rows = images.mean(dim=1).flatten(1)[:, : 3 * self.config.width].reshape(len(images), 3, -1)
        return Tokens(rows, torch.tensor([[0, 1]]).expand(len(images), -1))


def test_a_quadruplet_is_two_sketches_and_a_photo_of_a_class_and_a_photo_of_another(data: TrainingSet) -> None:
    how = Quadruplets(samples=200)
    objective = QuadrupletObjective(small_recipe(1), data, how)
    sketches, photos = objective._batch(torch.Generator().manual_seed(0))

    def classes(rows: torch.Tensor, of_class: tuple[torch.Tensor, ...]) -> list[int]:
        return [next(c for c, own in enumerate(of_class) if row in own) for row in rows.tolist()]

    drawn, shown = classes(sketches, data.sketch_rows), classes(photos, data.photo_rows)
    assert drawn[:200] == drawn[200:] == shown[:200]
    assert all(own != other for own, other in zip(drawn[:200], shown[200:], strict=True))
    assert set(drawn) == set(shown[200:]) == set(range(len(SHAPES)))


def test_the_papers_losses_are_a_triplet_of_tokens_and_the_squared_error_of_relation_scores(
    data: TrainingSet,
) -> None:
    how = Quadruplets(samples=3, triplet=2.0, relation=4.0, margin=1.0)
    recipe = quadruplets(small_recipe(1), how, cross_attention=False, **WITHOUT_SELECTION)
    network = Told(recipe.config)
    losses = QuadrupletObjective(recipe, data, how).losses(network, step=5)
    s, p = network.encode(network.seen["sketch"], "sketch"), network.encode(network.seen["photo"], "photo")
    triplets, squares = [], []
    for i in range(3):
        a, b, c = s.ret[i], p.ret[i], p.ret[3 + i]
        triplets.append(max(0.0, float((a - b).norm() - (a - c).norm()) + 1.0))
    scores = network.relate(network.project(s, "sketch"), network.project(p, "photo")).sigmoid().tolist()
    squares = [(score - MATCH) ** 2 for score in scores[:3]] + [(score - NO_MATCH) ** 2 for score in scores[3:]]
    assert losses["triplet"].item() == pytest.approx(2 * sum(triplets) / 3, abs=1e-4)
    assert losses["relation"].item() == pytest.approx(4 * sum(squares) / 6, abs=1e-5)


def test_the_regulariser_holds_the_mean_cosine_of_sketches_and_that_of_photos_at_a_target(data: TrainingSet) -> None:
    how = Quadruplets(samples=3, relation=0.0, spread=0.5, cosine=0.3)
    recipe = quadruplets(small_recipe(1), how, cross_attention=False, **WITHOUT_SELECTION)
    network = Told(recipe.config)
    losses = QuadrupletObjective(recipe, data, how).losses(network, step=5)
    expected = 0.0
    for half in ("sketch", "photo"):
        vectors = network.encode(network.seen[half], half).ret
        cosines = [
            float(vectors[i] @ vectors[j] / (vectors[i].norm() * vectors[j].norm()))
            for i in range(6)
            for j in range(6)
            if i != j
        ]
        expected += 0.5 * abs(sum(cosines) / len(cosines) - 0.3)
    assert set(losses) == {"triplet", "spread"}
    assert losses["spread"].item() == pytest.approx(expected, abs=1e-5)


def test_training_by_quadruplets_finds_pictures_it_never_saw_better(tmp_path: Path) -> None:
    data = training_set(write_patterns(tmp_path / "seen", seeds=range(12)), tmp_path / "pixels")
    fresh = write_patterns(tmp_path / "fresh", seeds=range(100, 106))
    how = Quadruplets(samples=8)
    recipe = quadruplets(small_recipe(60), how, relation="kernel-mlp", relation_ret=False, **WITHOUT_SELECTION)
    recipe = dataclasses.replace(
        recipe, optimiser=ZseOptimiser(encoder_rate=1e-3, head_rate=2e-3, warmup=5, average=0.0, last=1.0)
    )
    trainer = ZseTrainer(recipe, data, small_backbone(), tmp_path / "run")
    before = measure(fresh, score_matrices(trained_matcher(trainer.average), fresh))
    trainer.run()
    after = measure(fresh, score_matrices(trained_matcher(trainer.average), fresh))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert sum(entry["relation"] for entry in log[-10:]) < 0.95 * sum(entry["relation"] for entry in log[:10])
    assert not list((tmp_path / "run").glob("teacher*"))
    assert after.figures["ret"]["all"]["map_all"] > before.figures["ret"]["all"]["map_all"] + 0.05


class Remembered(Network):
    """Remembers the tokens that it encoded."""

    def encode(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        tokens = super().encode(images, modality, trace)
        self.tokens = {**getattr(self, "tokens", {}), modality: tokens}
        return tokens


def test_a_step_compares_every_sketch_with_every_photo(data: TrainingSet, tmp_path: Path) -> None:
    recipe = small_recipe(1)
    trainer = ZseTrainer(recipe, data, small_backbone(), tmp_path)
    network = Remembered(recipe.config)
    network.load_state_dict(trainer.network.state_dict())
    found = trainer.objective.losses(network, step=3)["relation"]
    count = recipe.classes
    sketches, photos = network.tokens["sketch"], network.tokens["photo"]
    assert sketches.features.shape[1] == photos.features.shape[1] == 1 + 9
    logits = torch.empty(count, count)
    for i in range(count):
        sketch = network.project(sketches[i : i + 1], "sketch")
        for j in range(count):
            photo = network.project(photos[j : j + 1], "photo")
            logits[i, j] = network.relate(sketch, photo)[0]
    expected = -(logits.log_softmax(dim=1).diagonal() + logits.log_softmax(dim=0).diagonal()).mean() / 2
    torch.testing.assert_close(found, expected)
    weights = dict(network.named_parameters())
    taught, slowly = (
        torch.autograd.grad(loss, list(weights.values()), retain_graph=True, allow_unused=True)
        for loss in (found, expected)
    )
    for name, one, other in zip(weights, taught, slowly, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6, msg=name)
    assert dict(zip(weights, taught, strict=True))["encoder.blocks.0.attn.qkv.weight"] is not None


@pytest.mark.parametrize(
    ("how", "network", "methods"),
    [
        (Quadruplets(samples=2, relation=0.0), {}, ("ret",)),
        (Quadruplets(samples=2, triplet=0.0), {"relation": "kernel-mlp", "relation_ret": False}, ("rn",)),
    ],
)
def test_a_network_is_offered_by_what_it_was_trained_for(
    how: Quadruplets, network: dict[str, object], methods: tuple[str, ...], data: TrainingSet, tmp_path: Path
) -> None:
    recipe = quadruplets(small_recipe(1), how, **network)
    trainer = ZseTrainer(recipe, data, small_backbone(), tmp_path / "run")
    trainer.run()
    validation = write_class_folders(tmp_path / "validation", seeds=range(2), shapes=SHAPES[:3])
    chosen, figures = calibrated(trainer.average, validation, methods=recipe.methods)
    assert chosen.calibration.methods == methods
    assert set(figures) == {*methods, f"{chosen.calibration.best_method}+diffusion"}
    save_checkpoint(chosen, tmp_path / "out.safetensors")
    again = load_network(tmp_path / "out.safetensors")
    assert (again.config, again.calibration) == (chosen.config, chosen.calibration)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in chosen.state_dict().items())
