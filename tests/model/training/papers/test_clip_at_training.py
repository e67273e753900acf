"""CLIP-AT: each equation against a plain slow version, its batches, and trainings on CLIP and on a ViT of timm."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sketch_search.model.errors import ModelError
from sketch_search.model.training.network import PretrainedVit, VitLayout, read_clip
from sketch_search.model.training.papers import clip_at
from sketch_search.model.training.papers.clip_at import ClipAtLosses, ClipAtOptimiser, ClipAtRecipe
from sketch_search.model.training.papers.pictures import TrainingSet, training_set
from tests.learning import small_backbone, write_class_folders
from tests.networks import READING, randn, saved_clip
from tests.pictures import SHAPES

VIT = PretrainedVit(
    VitLayout(patch_size=16, width=32, depth=4, heads=2, mlp_width=64), 64, small_backbone(), (0.5,) * 3, (0.5,) * 3
)
RECIPE = ClipAtRecipe(
    backbone="vit_tiny_patch16_224",
    network={"prompts": 2},
    steps=6,
    batch=4,
    categories=2,
    losses=ClipAtLosses(temperature=0.1),
    optimiser=ClipAtOptimiser(encoder_rate=1e-2, prompt_rate=1e-2, warmup=2, average=0.5),
    # With each saved state the curve is drawn, which takes longer than some steps.
    save_every=1000,
    bf16=False,
)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return 1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    folder = tmp_path_factory.mktemp("pairs")
    return training_set(write_class_folders(folder, seeds=range(3), shapes=SHAPES[:3], drawn=2))


@pytest.fixture(scope="module")
def texts() -> torch.Tensor:
    return torch.nn.functional.normalize(randn(3, 12), dim=1)


def test_the_triplet_loss_wants_the_right_photo_nearer_by_the_margin() -> None:
    sketches, right, wrong = randn(5, 7), randn(5, 7, seed=1), randn(5, 7, seed=2)
    expected = sum(
        max(0.0, 0.2 + distance(s, p) - distance(s, n)) for s, p, n in zip(sketches, right, wrong, strict=True)
    )
    assert float(clip_at.triplet_loss(sketches, right, wrong, margin=0.2)) == pytest.approx(expected / 5, abs=1e-6)


def test_the_classification_is_the_log_share_of_the_right_text() -> None:
    vectors, labels = randn(3, 6), [2, 0, 2]
    texts = torch.nn.functional.normalize(randn(4, 6, seed=1), dim=1)
    expected = 0.0
    for vector, label in zip(vectors, labels, strict=True):
        powers = [math.exp((1 - distance(vector, text)) / 0.1) for text in texts]
        expected -= math.log(powers[label] / sum(powers)) / 3
    found = clip_at.classification_loss(vectors, torch.tensor(labels), texts, 0.1)
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_hard_triplets_take_the_nearest_other_photo_of_the_category() -> None:
    sketches, photos = randn(2, 3, 5), randn(2, 3, 5, seed=1)
    expected = 0.0
    for c, i in itertools.product(range(2), range(3)):
        nearest = min(distance(sketches[c, i], photos[c, j]) for j in range(3) if j != i)
        expected += max(0.0, 0.2 + distance(sketches[c, i], photos[c, i]) - nearest) / 6
    assert float(clip_at.hard_triplet_loss(clip_at.category_distances(sketches, photos), 0.2)) == pytest.approx(
        expected, abs=1e-6
    )


def test_equation_1_is_the_mean_divergence_of_the_densities_of_relative_distances() -> None:
    sketches, photos = randn(3, 3, 5), randn(3, 3, 5, seed=1)
    densities = []
    for c in range(3):
        relative = [
            distance(sketches[c, i], photos[c, i]) - distance(sketches[c, i], photos[c, j])
            for i, j in itertools.permutations(range(3), 2)
        ]
        heights = [
            sum(math.exp(-(((-2 + 4 * n / 80 - value) / 0.2) ** 2) / 2) for value in relative) for n in range(81)
        ]
        densities.append([height / sum(heights) for height in heights])
    expected = sum(
        a * math.log(a / b) / 6
        for one, other in itertools.permutations(densities, 2)
        for a, b in zip(one, other, strict=True)
    )
    logs = clip_at.log_densities(clip_at.relative_distances(clip_at.category_distances(sketches, photos)), 0.2)
    assert float(clip_at.average_divergence(logs)) == pytest.approx(expected, rel=1e-4)
    assert float(clip_at.average_divergence(logs[:1].expand(3, -1))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("grid", [2, 3])
def test_a_pair_has_its_patches_in_two_different_orders_in_their_new_places(grid: int) -> None:
    first, second = clip_at.draw_orders(500, grid, torch.Generator().manual_seed(0))
    assert (first != second).any(dim=1).all()
    images, orders = randn(2, 3, 6 * grid, 6 * grid), torch.stack([first[0], second[0]])
    assert torch.equal(orders.sort(dim=1).values, torch.arange(grid * grid).expand(2, -1))
    before, after = (
        torch.nn.functional.unfold(one, 6, stride=6) for one in (images, clip_at.shuffle_patches(images, orders))
    )
    for old, new, order in zip(before, after, orders, strict=True):
        assert torch.equal(new, old[:, order])


def test_the_wrong_photo_is_of_another_class() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1])
    for seed in range(20):
        assert (labels[clip_at.draw_others(labels, torch.Generator().manual_seed(seed))] != labels).all()


def trainer(data: TrainingSet, texts: torch.Tensor, folder: Path, **changes: Any) -> clip_at.ClipAtTrainer:
    return clip_at.ClipAtTrainer(dataclasses.replace(RECIPE, **changes), data, texts, VIT, folder)


def test_categories_and_pairs_have_their_losses(pairs: TrainingSet, texts: torch.Tensor, tmp_path: Path) -> None:
    assert set(trainer(pairs, texts, tmp_path / "c").train_step()) == {"triplet", "classes"}
    fine = trainer(pairs, texts, tmp_path / "f", level="fine-grained")
    assert set(fine.train_step()) == {"triplet", "classes", "divergence", "patches"}
    weights = ClipAtLosses(classes=0, divergence=0, patches=0)
    alone = trainer(pairs, texts, tmp_path / "t", level="fine-grained", losses=weights)
    assert set(alone.train_step()) == {"triplet"}
    assert set(fine.trained.learned.prompts) == {"both"}


def test_a_fine_grained_batch_has_several_categories(pairs: TrainingSet, texts: torch.Tensor, tmp_path: Path) -> None:
    fine = trainer(pairs, texts, tmp_path, level="fine-grained")
    labels, sketches, photos = fine.pair_batch(torch.Generator().manual_seed(0))
    assert labels[0] == labels[1] != labels[2] == labels[3]
    assert torch.equal(pairs.drawn_from[sketches], photos)
    assert all(int(photo) in pairs.photo_rows[int(label)] for photo, label in zip(photos, labels, strict=True))
    assert len(set(photos.tolist())) == 4


@pytest.mark.parametrize("level", ["category", "fine-grained"])
def test_only_prompts_and_layer_norms_change(
    level: Literal["category", "fine-grained"], pairs: TrainingSet, texts: torch.Tensor, tmp_path: Path
) -> None:
    one = trainer(pairs, texts, tmp_path, level=level)
    before = {name: tensor.clone() for name, tensor in one.start.state_dict().items()}
    one.run(until=2)
    after = one.trained.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {name for name in before if name.startswith("learned.")}
    with safe_open(one.state_path, framework="pt") as state:
        names = set(state.keys())
    assert not any("encoder" in name for name in names), "the frozen encoder is no part of the state"


def test_unsuitable_training_data_is_refused(pairs: TrainingSet, texts: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="64 pixels cannot be cut into 3 equal rows"):
        trainer(pairs, texts, tmp_path, level="fine-grained", losses=ClipAtLosses(patch_grid=3))
    alone = write_class_folders(tmp_path / "one", seeds=range(2), shapes=SHAPES[:1])
    with pytest.raises(ModelError, match="of 1 class only; at least 2 are needed"):
        training_set(alone)
    unpaired = training_set(write_class_folders(tmp_path / "two", seeds=range(2), shapes=SHAPES[:2]))
    with pytest.raises(ModelError, match="0 categories have 2 photos with sketches drawn from them"):
        trainer(unpaired, texts, tmp_path / "run", level="fine-grained")


@pytest.mark.parametrize(
    ("kept", "changes", "sentence"),
    [
        ("", {"vision_cfg": {**READING["vision_cfg"], "pool_type": "avg"}}, "is not a plain ViT with a class token"),
        ("visual.", {}, "has no text encoder, which CLIP-AT needs for the names of classes"),
        ("visual.", {"text_cfg": None}, "has no text encoder"),
    ],
)
def test_a_clip_of_other_kind_is_refused(kept: str, changes: dict[str, object], sentence: str, tmp_path: Path) -> None:
    folder = saved_clip(tmp_path / "clip", READING)
    weights = folder / "open_clip_model.safetensors"
    save_file({name: value for name, value in load_file(weights).items() if name.startswith(kept)}, weights)
    settings = {name: value for name, value in {**READING, **changes}.items() if value is not None}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": {}}))
    with pytest.raises(ModelError, match=sentence):
        read_clip(str(folder))
