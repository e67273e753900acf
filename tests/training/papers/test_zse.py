import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sketch_search.model.engine import Modality, file_sha256
from sketch_search.model.errors import ModelError
from sketch_search.model.torch.checkpoint import load_zse_network, photo_side_tensors, save_checkpoint
from sketch_search.model.torch.relation import Tokens
from sketch_search.model.torch.zse import Network
from sketch_search.training.corpus import Corpus
from sketch_search.training.evaluation.figures import measure
from sketch_search.training.evaluation.scoring import calibrate, score_matrices
from sketch_search.training.papers.pictures import TrainingSet, normalize, training_set
from sketch_search.training.papers.tables import read_recipe
from sketch_search.training.papers.two_sided import listwise_loss
from sketch_search.training.papers.zse import Kept, Samples, ZseOptimiser, ZseRecipe, ZseTrainer, instances
from sketch_search.training.tasks import Task
from tests.model.torch.test_network import NARROW, two_sided, written
from tests.networks import matcher_of, small_backbone, small_recipe, write_class_folders
from tests.pictures import SHAPES

RELEASED = Samples(
    count=3, pairs="two", ret="cross-attention", match=0.99, no_match=0.01, triplet=2.0, relation=4.0, margin=1.0
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_class_folders(tmp_path_factory.mktemp("training"), seeds=range(6))


@pytest.fixture(scope="module")
def data(corpus: Corpus) -> TrainingSet:
    return training_set(corpus)


@pytest.mark.parametrize(
    ("how", "methods"),
    [
        (Samples(count=4), {"rn", "ret", "fused"}),
        (Samples(count=2, relation=0.0), {"ret"}),
        (dataclasses.replace(RELEASED, count=2, triplet=0.0), {"rn"}),
    ],
    ids=["both", "triplet alone", "relation alone"],
)
def test_a_network_has_the_methods_it_was_trained_for_and_the_best_on_validation(
    how: Samples, methods: set[str], corpus: Corpus, data: TrainingSet, tmp_path: Path
) -> None:
    recipe = with_samples(small_recipe(2), how)
    trainer = ZseTrainer(recipe, data, small_backbone(), tmp_path)
    trainer.run()
    network, figures = calibrate(trainer.average, corpus, methods=recipe.methods)
    best = network.calibration.best_method
    assert set(network.calibration.methods) == methods
    assert set(figures) == {*methods, f"{best}+diffusion"}
    measured = measure(Task(corpus), score_matrices(matcher_of(network, variants=1), corpus)).figures
    found = {name: round(groups["all"]["map_all"], 4) for name, groups in measured.items()}
    assert {name: found[name] for name in figures} == pytest.approx(figures, abs=1e-4)
    assert found[f"{best}+diffusion"] == max(figure for name, figure in found.items() if name.endswith("+diffusion"))


def test_the_listwise_loss_reads_rows_and_columns_and_ignores_a_constant() -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    rows = -(torch.log_softmax(logits, 1).diagonal().mean())
    columns = -(torch.log_softmax(logits, 0).diagonal().mean())
    torch.testing.assert_close(listwise_loss(logits), (rows + columns) / 2)
    torch.testing.assert_close(listwise_loss(logits + 7), listwise_loss(logits))


# On the photo side of ``two_sided``.
SMALL_ZSE = {**NARROW, "image_size": 56, "kernel_width": 8, "select_after": [0]}
WITHOUT_SELECTION = {"keep_sketch": 1.0, "keep_photo": 1.0}


def written_photo_side(folder: Path) -> Path:
    written(folder, two_sided())
    return folder / "photo-side.safetensors"


def with_samples(recipe: ZseRecipe, how: Samples, **network: object) -> ZseRecipe:
    return dataclasses.replace(recipe, samples=how, network={**recipe.network, **network})


class Told(Network):
    """Remembers what it was asked to encode, and answers with pixels as tokens: two of them, and [Ret] in front."""

    def _encode(self, images: torch.Tensor, modality: str, trace: object) -> Tokens:
        self.seen = {**getattr(self, "seen", {}), modality: images}
        rows = images.mean(dim=1).flatten(1)[:, : 3 * self.config.width].reshape(len(images), 3, -1)
        return Tokens(rows, torch.tensor([[0, 1]]).expand(len(images), -1))


def test_a_sample_of_two_pairs_has_a_second_sketch_and_another_photo(data: TrainingSet, tmp_path: Path) -> None:
    recipe = with_samples(small_recipe(1), Samples(count=200, pairs="two"))
    trainer = ZseTrainer(recipe, data, small_backbone(), tmp_path)
    sketches, photos, *_ = trainer.batch(torch.Generator().manual_seed(0))

    def classes(rows: torch.Tensor, of_class: tuple[torch.Tensor, ...]) -> list[int]:
        return [next(c for c, own in enumerate(of_class) if row in own) for row in rows.tolist()]

    drawn, shown = classes(sketches, data.sketch_rows), classes(photos, data.photo_rows)
    assert drawn[:200] == drawn[200:] == shown[:200]
    assert all(own != other for own, other in zip(drawn[:200], shown[200:], strict=True))
    assert set(drawn) == set(shown[200:]) == set(range(len(SHAPES)))


def test_the_released_losses_are_a_triplet_and_a_squared_error_of_pairs(data: TrainingSet, tmp_path: Path) -> None:
    recipe = with_samples(small_recipe(1), RELEASED, **WITHOUT_SELECTION)
    trainer = ZseTrainer(recipe, data, small_backbone(), tmp_path)
    trainer.network = network = Told(recipe.config).requires_grad_(False)
    losses = trainer.losses()
    s, p = network.encode(network.seen["sketch"], "sketch"), network.encode(network.seen["photo"], "photo")
    sides = network.project(s, "sketch"), network.project(p, "photo")
    drawn, shown = network.align(*sides)
    triplets = []
    for i in range(3):
        a, b, c = drawn.ret[i], shown.ret[i], shown.ret[3 + i]
        triplets.append(max(0.0, float((a - b).norm() - (a - c).norm()) + 1.0))
    scores = network.relate(*sides).sigmoid().tolist()
    squares = [(score - 0.99) ** 2 for score in scores[:3]] + [(score - 0.01) ** 2 for score in scores[3:]]
    assert losses["triplet"].item() == pytest.approx(2 * sum(triplets) / 3, abs=1e-4)
    assert losses["relation"].item() == pytest.approx(4 * sum(squares) / 6, abs=1e-5)


def test_the_papers_losses_are_of_all_triplets_and_all_pairs_of_the_step(data: TrainingSet, tmp_path: Path) -> None:
    recipe = with_samples(small_recipe(1), Samples(count=3, ret="cross-attention"), **WITHOUT_SELECTION)
    trainer = ZseTrainer(recipe, data, small_backbone(), tmp_path)
    *_, asked, shown = trainer.batch(trainer.generator())
    trainer.network = network = Told(recipe.config).requires_grad_(False)
    losses = trainer.losses()
    s, p = network.encode(network.seen["sketch"], "sketch"), network.encode(network.seen["photo"], "photo")
    assert (len(s), len(p)) == (3, 6)
    squares, triplets = [], []
    for i in range(3):
        drawn, pictures = network.project(s[i : i + 1], "sketch"), network.project(p, "photo")
        one, other = network.align(drawn, pictures)
        gaps = (one.ret - other.ret).norm(dim=1).tolist()
        alike = (shown == asked[i]).tolist()
        for j, score in enumerate(network.relate(drawn, pictures).sigmoid().tolist()):
            squares.append((score - alike[j]) ** 2)
            if alike[j]:
                triplets += [max(0.0, gaps[j] - gap + 1.0) for gap, same in zip(gaps, alike, strict=True) if not same]
    assert losses["triplet"].item() == pytest.approx(sum(triplets) / len(triplets), abs=1e-4)
    assert losses["relation"].item() == pytest.approx(sum(squares) / len(squares), abs=1e-5)


def test_instances_of_one_class_are_told_apart_and_judged_by_the_photo_that_was_drawn(tmp_path: Path) -> None:
    corpus = write_class_folders(tmp_path / "shoes", seeds=range(4), shapes=SHAPES[:1], drawn=2)
    recipe = with_samples(small_recipe(1), Samples(count=3, level="instance"))
    assert recipe.fewest_classes == 1
    trainer = ZseTrainer(recipe, training_set(corpus, fewest=1), small_backbone(), tmp_path / "run")
    sketches, photos, asked, shown = trainer.batch(torch.Generator().manual_seed(0))
    assert trainer.data.drawn_from[sketches].tolist() == asked.tolist() == photos[:3].tolist() == shown[:3].tolist()
    assert len(set(asked.tolist())) == 3, "photos come again only when all had their turn"
    assert all(own != other for own, other in zip(asked.tolist(), photos[3:].tolist(), strict=True))
    assert set(trainer.train_step()) == {"triplet", "relation"}
    pairs, right = trainer.judged(corpus, 1)
    assert (right.sum(axis=1) == 1).all()
    for sketch, row in zip(pairs.sketches, right.argmax(axis=1), strict=True):
        assert sketch.path.stem.rpartition("-")[0] == pairs.photos[row].path.stem
    # The photo 0 and the sketch 2, which shows the photo 1, are not kept.
    places: dict[Modality, torch.Tensor] = {
        "photo": torch.tensor([-1, 0, 1, 2]),
        "sketch": torch.tensor([0, 1, -1, 2, 3, 4, 5, 6]),
    }
    kept: Kept = {side: (torch.empty(0), torch.empty(0), at) for side, at in places.items()}
    ((of_class, drawn),) = instances(trainer.data, kept)
    assert (of_class.tolist(), {photo: rows.tolist() for photo, rows in drawn.items()}) == (
        [1, 2, 3],
        {1: [3], 2: [4, 5], 3: [6, 7]},
    )
    without = write_class_folders(tmp_path / "hats", seeds=range(2), shapes=SHAPES[:1])
    with pytest.raises(ModelError, match="name sketches after their photos"):
        ZseTrainer(recipe, training_set(without, fewest=1), small_backbone(), tmp_path / "none")


def test_pairs_learn_on_features_that_are_kept_of_an_encoder_that_stays_as_it_is(
    corpus: Corpus, data: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sketch_search.training.papers.zse.cache_folder", lambda: tmp_path / "cache")
    side = written_photo_side(tmp_path)
    network = {**SMALL_ZSE, "photo_side": file_sha256(side)}
    recipe = read_recipe(Path("zse/pairs"), {"steps": 2, "kept": 4, "network": network, "samples": {"count": 3}})
    assert isinstance(recipe, ZseRecipe)
    trainer = ZseTrainer(recipe, data, photo_side_tensors(side), tmp_path / "run")
    assert trainer.kept is not None
    for modality, (features, _, at) in trainer.kept.items():
        pixels = data.sketches if modality == "sketch" else data.photos
        assert len(features) == 4 * len(data.sketch_rows)
        row = torch.nonzero(at >= 0)[-1]
        encoded = trainer.network.eval().encode(normalize(pixels[row], recipe.config), modality)
        # Some processors encode in bfloat16, which keeps 8 bits of a number, not 11.
        near = 2e-2 if trainer.dtype == torch.bfloat16 else 2e-3
        torch.testing.assert_close(trainer.tokens(row, modality).features, encoded.features, atol=near, rtol=near)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.run()
    moved = {name for name, value in trainer.network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name in moved if name.startswith("encoder.")} == {"encoder.project.weight", "encoder.project.bias"}
    assert {"relation.mlp.0.weight", "cross.sketch.query.weight"} <= moved
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert {"ret", "triplet", "relation", "pairs"} <= first.keys()
    selecting = dataclasses.replace(recipe, network={**recipe.network, "keep_photo": 0.5})
    fewer = ZseTrainer(selecting, data, photo_side_tensors(side), tmp_path / "selecting").kept
    assert fewer is not None
    sizes = [[kept[side][0].shape[1] for side in ("sketch", "photo")] for kept in (trainer.kept, fewer)]
    assert sizes[0][0] == sizes[0][1] == sizes[1][0] > sizes[1][1], "tokens of another selection are not read"


def test_norms_learn_and_matrices_stay_with_the_photo_side(corpus: Corpus, data: TrainingSet, tmp_path: Path) -> None:
    side = written_photo_side(tmp_path)
    network = {**SMALL_ZSE, "photo_side": file_sha256(side)}
    changes = {"tuned": "norms", "steps": 2, "network": network, "samples": {"count": 3}}
    recipe = read_recipe(Path("zse/pairs"), changes)
    assert isinstance(recipe, ZseRecipe)
    trainer = ZseTrainer(recipe, data, photo_side_tensors(side), tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.run()
    moved = {name for name, value in trainer.network.state_dict().items() if not torch.equal(value, before[name])}
    assert {"encoder.blocks.0.norm1.weight", "encoder.blocks.1.ls2.gamma", "encoder.ret"} <= moved
    matrices = {"encoder.tokenizer.patch.weight", "encoder.blocks.1.mlp.fc2.weight", "encoder.blocks.0.attn.qkv.weight"}
    assert matrices <= before.keys() - moved
    path = tmp_path / "trained.safetensors"
    trained, _ = calibrate(trainer.trained, corpus, methods=recipe.methods)
    save_checkpoint(trained.half(), path)
    assert not matrices & load_file(path).keys()
    again, pictures = load_zse_network(path), torch.rand(2, 3, 56, 56)
    one, other = (each.encode(pictures, "photo").features for each in (again, trained.float()))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-2)


def test_a_training_lowers_its_losses(data: TrainingSet, tmp_path: Path) -> None:
    changes = {"relation": "kernel-mlp", "relation_ret": False, **WITHOUT_SELECTION}
    recipe = with_samples(small_recipe(24), Samples(count=8), **changes)
    faster = ZseOptimiser(encoder_rate=1e-3, head_rate=2e-3, warmup=5, average=0.0, last=1.0)
    trainer = ZseTrainer(dataclasses.replace(recipe, optimiser=faster), data, small_backbone(), tmp_path)
    trainer.run()
    log = [json.loads(line) for line in trainer.log_path.read_text().splitlines()]
    for loss in ("relation", "triplet"):
        assert sum(entry[loss] for entry in log[-8:]) < 0.95 * sum(entry[loss] for entry in log[:8]), loss
