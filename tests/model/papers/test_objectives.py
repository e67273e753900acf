"""Steps of trainings: the paper's quadruplets, pairs of instances, parts of the data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from model.checkpoint.file import load_network, save_checkpoint
from model.datasets.corpus import Corpus, Picture
from model.datasets.protocols import hold_out
from model.errors import ModelError
from model.evaluation.categories import evaluate
from model.matcher import Matcher
from model.network.backbone import from_backbone
from model.network.config import Modality
from model.network.layers.encoder import EncoderTrace
from model.network.tokens import Tokens
from model.network.zse import Network
from model.papers.pictures import TrainingSet, training_corpora, training_set
from model.papers.recipe import Batch, Quadruplets, Weights, ZseOptimiser, ZseRecipe
from model.papers.zse.objectives import MATCH, NO_MATCH, QuadrupletObjective, Sampler
from model.papers.zse.teacher import Teacher
from model.papers.zse.trainer import ZseTrainer
from model.training.calibration import calibrated, trained_matcher
from tests.learning import small_backbone, small_recipe, write_class_folders, write_patterns
from tests.pictures import SHAPES, drawing, photo

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
    objective = QuadrupletObjective(small_recipe((64, 1)), data, how)
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
    recipe = quadruplets(small_recipe((64, 1)), how, cross_attention=False, **WITHOUT_SELECTION)
    network = Told(recipe.config(64))
    losses = QuadrupletObjective(recipe, data, how).losses(network, step=5, side=64)
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
    recipe = quadruplets(small_recipe((64, 1)), how, cross_attention=False, **WITHOUT_SELECTION)
    network = Told(recipe.config(64))
    losses = QuadrupletObjective(recipe, data, how).losses(network, step=5, side=64)
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


def test_a_network_whose_ret_is_the_mean_of_the_patch_tokens(data: TrainingSet) -> None:
    recipe = small_recipe((64, 1))
    pooled = quadruplets(recipe, Quadruplets(), pooling="mean")
    plain, network = (from_backbone(r.config(64), small_backbone()) for r in (recipe, pooled))
    images = data.photos[:2].float()[:, :, :64, :64] / 255
    with torch.no_grad():
        expected, found = plain.eval().encode(images, "photo"), network.eval().encode(images, "photo")
    assert torch.equal(found.patches, expected.patches)
    assert torch.allclose(found.ret, expected.patches.mean(dim=1))


def test_training_by_quadruplets_finds_pictures_it_never_saw_better(tmp_path: Path) -> None:
    data = training_set(write_patterns(tmp_path / "seen", seeds=range(12)), tmp_path / "pixels")
    fresh = write_patterns(tmp_path / "fresh", seeds=range(100, 106))
    how = Quadruplets(samples=8)
    recipe = quadruplets(small_recipe((64, 60)), how, relation="kernel-mlp", relation_ret=False, **WITHOUT_SELECTION)
    recipe = dataclasses.replace(
        recipe, optimiser=ZseOptimiser(encoder_rate=1e-3, head_rate=2e-3, warmup=5, average=0.0, stable=1.0)
    )
    trainer = ZseTrainer(recipe, data, small_backbone(), tmp_path / "run")
    before = evaluate(trained_matcher(trainer.average), fresh)
    trainer.run()
    after = evaluate(trained_matcher(trainer.average), fresh)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert sum(entry["relation"] for entry in log[-10:]) < 0.95 * sum(entry["relation"] for entry in log[:10])
    assert not list((tmp_path / "run").glob("teacher*"))
    assert after.methods["ret"].overall.map_all > before.methods["ret"].overall.map_all + 0.05


class Remembered(Network):
    """Remembers the tokens that it encoded."""

    def encode(self, images: torch.Tensor, modality: Modality, trace: EncoderTrace | None = None) -> Tokens:
        tokens = super().encode(images, modality, trace)
        self.tokens = {**getattr(self, "tokens", {}), modality: tokens}
        return tokens


def test_a_step_compares_the_first_sketch_of_each_photo_with_every_photo(data: TrainingSet, tmp_path: Path) -> None:
    recipe = small_recipe((64, 1))
    trainer = ZseTrainer(recipe, data, small_backbone(), tmp_path)
    network = Remembered(recipe.config(64))
    network.load_state_dict(trainer.network.state_dict())
    found = trainer.objective.losses(network, step=3, side=64)["relation"]
    count = recipe.batch.classes
    sketches, photos = network.tokens["sketch"], network.tokens["photo"]
    assert sketches.features.shape[1] == photos.features.shape[1] == 1 + 9
    logits = torch.empty(count, count)
    for i in range(count):
        row = i * recipe.batch.sketches
        sketch = network.project(sketches[row : row + 1], "sketch")
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
        (Quadruplets(samples=2, triplet=0.0), {"relation": "pair-mlp", "relation_ret": False}, ("rn",)),
        (Quadruplets(samples=2), {"encoder": "resnet50", **WITHOUT_SELECTION}, ("rn", "ret", "fused")),
    ],
)
def test_an_ablation_is_offered_by_what_it_was_trained_for(
    how: Quadruplets, network: dict[str, object], methods: tuple[str, ...], data: TrainingSet, tmp_path: Path
) -> None:
    recipe = quadruplets(small_recipe((64, 1)), how, **network)
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


def test_a_convolutional_encoder_starts_untrained_and_has_no_attention_to_show() -> None:
    config = small_recipe((64, 1)).config(64)
    config = dataclasses.replace(config, encoder="resnet50", keep_sketch=1.0, keep_photo=1.0)
    matcher = Matcher(from_backbone(config, small_backbone()), "untracked")
    tokens = matcher.encode(torch.rand(2, 3, 64, 64), "photo")
    assert tokens.features.shape == (2, 1 + 16, 32)
    with pytest.raises(ModelError, match="has no self-attention"):
        matcher.explain(drawing("star", 64, 0), photo("star", 64, 0))
    with pytest.raises(ModelError, match="keep rates must be 1"):
        dataclasses.replace(config, keep_photo=0.7)


def with_drawn_sketches(folder: Path, names: tuple[str, ...] = SHAPES) -> Corpus:
    """Three photos of each shape and two sketches named after each of them."""
    kinds: dict[str, list[Picture]] = {"sketch": [], "photo": []}
    for shape in names:
        for number in range(3):
            for half, make, copies in (("photo", photo, ("",)), ("sketch", drawing, ("-1", "-2"))):
                for copy in copies:
                    path = folder / half / shape / f"p{number}{copy}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    make(shape, 64, number).save(path)
                    kinds[half].append(Picture(path, shape, "sketchy"))
    return Corpus(tuple(kinds["sketch"]), tuple(kinds["photo"]))


def test_batches_of_instances_put_each_photo_beside_sketches_drawn_from_it(tmp_path: Path) -> None:
    corpus = with_drawn_sketches(tmp_path)
    data = training_set(corpus, tmp_path / "pixels")
    recipe = dataclasses.replace(
        small_recipe((64, 1)), batch=Batch(classes=2, photos=3, sketches=2, drawn=0), weights=Weights(contrast=1.0)
    )
    count = len(data.photos)
    features = torch.nn.functional.normalize(torch.randn(count, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    teacher = Teacher(features, data.photo_labels, torch.empty(count, 0), torch.empty(0, 8), torch.empty(0))
    rows = Sampler(recipe.batch, data, teacher).sample(torch.Generator().manual_seed(1))
    labels, sketches, photos = rows.labels, rows.sketches, rows.photos
    assert len(set(labels.tolist())) == 2
    assert len(set(photos.tolist())) == len(photos) == 6
    for place, row in enumerate(photos.tolist()):
        assert corpus.photos[row].label == corpus.labels[labels[place]]
        for sketch in sketches[2 * place : 2 * place + 2].tolist():
            assert corpus.sketches[sketch].path.stem.rsplit("-", 1)[0] == corpus.photos[row].path.stem
            assert corpus.sketches[sketch].label == corpus.photos[row].label


def test_sketches_are_to_find_the_photo_they_were_drawn_from_where_there_is_one(tmp_path: Path) -> None:
    data = training_set(with_drawn_sketches(tmp_path), tmp_path / "pixels")
    assert data.drawn_from[: len(data.photos)].tolist() == [n // 2 for n in range(len(data.photos))]
    recipe = dataclasses.replace(
        small_recipe((64, 1)), batch=Batch(classes=2, drawn=0), weights=Weights(instances=0.5, bank=0.0)
    )
    losses = ZseTrainer(recipe, data, small_backbone(), tmp_path / "run").train_step()
    assert losses["instances"] > 0
    without = dataclasses.replace(data, drawn_from=torch.full_like(data.drawn_from, -1))
    assert ZseTrainer(recipe, without, small_backbone(), tmp_path / "other").train_step()["instances"] == 0


def test_a_training_leaves_out_what_its_protocol_holds_out(tmp_path: Path) -> None:
    write_class_folders(tmp_path, seeds=range(10), shapes=SHAPES)
    recipe = small_recipe((64, 1))
    whole = training_corpora(tmp_path, recipe).training
    kept = training_corpora(tmp_path, dataclasses.replace(recipe, hold_out=True)).training
    assert kept == hold_out(whole)[0]
    assert len(kept.photos) == 0.8 * len(whole.photos)
    none = training_corpora(tmp_path, dataclasses.replace(recipe, data_set="tuberlin")).training
    assert not none.sketches
