"""Sketch-an-Anchor and CLIP-AT: each equation against a plain slow version, anchors, and whole trainings."""

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sketch_search.model.errors import ModelError
from sketch_search.model.torch import PretrainedVit, VitLayout, read_clip
from sketch_search.training.corpus import data_folder, read_split
from sketch_search.training.papers import clip_at, sketch_an_anchor
from sketch_search.training.papers.clip_at import ClipAtLosses, ClipAtOptimiser, ClipAtRecipe
from sketch_search.training.papers.pictures import TrainingSet, WordVectors, class_rows, read_word_vectors, training_set
from sketch_search.training.papers.tables import read_recipe
from tests.networks import READING, randn, saved_clip, small_backbone, small_vit, write_class_folders
from tests.pictures import SHAPES
from tests.requirements import needs_shared_data

SIZES: dict[str, Any] = {"embed_dim": 32, "depth": 4, "num_heads": 2, "mlp_ratio": 2.0}
RECIPE = sketch_an_anchor.AnchorRecipe(
    backbone="vit_tiny_patch16_224",
    network={"sizes": SIZES, "image_size": 64, "units": 40},
    steps=6,
    batch=4,
    optimiser=sketch_an_anchor.AnchorOptimiser(rate=1e-3, last=0.1, warmup=2),
    anchoring=sketch_an_anchor.Anchoring(graph=2),
    save_every=2,
    bf16=False,
)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    corpus = write_class_folders(tmp_path_factory.mktemp("pictures"), seeds=range(3), shapes=SHAPES[:4])
    return training_set(corpus)


@pytest.fixture(scope="module")
def anchors() -> sketch_an_anchor.Anchors:
    visual = sketch_an_anchor.VisualAnchors(randn(4, 32, seed=1), randn(4, 32, seed=2).abs() / 10)
    return {"word": sketch_an_anchor.WordAnchors(randn(4, 20, seed=3), randn(4, 5, 20, seed=4)), "visual": visual}


def test_equation_1_is_the_log_share_of_each_sketchs_own_photo() -> None:
    sketches, photos = randn(5, 7), randn(5, 7, seed=1)
    expected = 0.0
    for i in range(5):
        shares = softmax([cosine(sketches[i], photos[j]) / 0.1 for j in range(5)])
        expected -= math.log(shares[i]) / 5
    assert float(sketch_an_anchor.info_nce(sketches, photos, 0.1)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("labels", "theirs"), [([4, 0, 4], range(5)), ([1, 3, 2], [1, 3, 2])], ids=["3", "4"])
def test_equations_3_and_4_compare_vectors_with_anchors_and_photos(labels: list[int], theirs: Sequence[int]) -> None:
    vectors, compared, anchors = randn(3, 6), randn(len(theirs), 6, seed=1), randn(5, 8, seed=2)
    expected = 0.0
    for vector, label in zip(vectors, labels, strict=True):
        target = softmax([3 * cosine(anchors[label], anchors[other]) for other in theirs])
        shares = softmax([cosine(vector, other) / 0.2 for other in compared])
        expected -= sum(part * math.log(share) for part, share in zip(target, shares, strict=True)) / 3
    alike = sketch_an_anchor.similarities(anchors, 3)[torch.tensor(labels)][:, list(theirs)]
    assert float(sketch_an_anchor.anchored_contrastive_loss(vectors, compared, alike, 0.2)) == pytest.approx(
        expected, abs=1e-5
    )


def test_equation_5_mixes_each_anchor_with_its_own_graph_and_its_twin() -> None:
    words, visuals = randn(3, 4), randn(3, 6, seed=1)
    graph = sketch_an_anchor.AnchorGraph(units=6, layers=2, sharpness=3)
    nodes = [[float(x) for x in row] for row in torch.cat([sketch_an_anchor.pad_anchors(words, 6), visuals])]
    edges = [[0.0] * 6 for _ in range(6)]
    for i in range(6):
        own = words if i < 3 else visuals
        strengths = {}
        for j in range(6):
            if (i < 3) == (j < 3):
                strengths[j] = 3 * cosine(own[i % 3], own[j % 3])
            elif i % 3 == j % 3:
                strengths[j] = 3  # as strong as an anchor with itself
        for j, share in zip(strengths, softmax(list(strengths.values())), strict=True):
            edges[i][j] = share
    found = sketch_an_anchor.join_edges(
        [sketch_an_anchor.similarities(words, 3), sketch_an_anchor.similarities(visuals, 3)]
    )
    torch.testing.assert_close(found, torch.tensor(edges))
    for layer in graph.layers:
        mixed = [[sum(edges[i][j] * nodes[j][d] for j in range(6)) for d in range(6)] for i in range(6)]
        weight = layer.weight.tolist()  # type: ignore[operator]
        nodes = [[sum(mixed[i][d] * weight[u][d] for d in range(6)) for u in range(6)] for i in range(6)]
    adapted = graph({"word": words, "visual": visuals})
    torch.testing.assert_close(torch.cat([adapted["word"], adapted["visual"]]), torch.tensor(nodes), atol=1e-5, rtol=0)


def test_randomised_anchors_are_neighbours_and_samples_around_means(anchors: sketch_an_anchor.Anchors) -> None:
    generator = torch.Generator().manual_seed(0)
    word, visual = anchors["word"], anchors["visual"]
    assert isinstance(word, sketch_an_anchor.WordAnchors)
    assert isinstance(visual, sketch_an_anchor.VisualAnchors)
    steps = torch.stack([word.draw(generator, 0.5) for _ in range(500)])
    for number, of_class in enumerate(word.neighbours):
        found = (steps[:, number, None] == torch.cat([word.vectors[number][None], of_class])).all(dim=2)
        assert found.any(dim=1).all()
        assert float(found[:, 0].float().mean()) == pytest.approx(0.5, abs=0.1)
    samples = torch.stack([visual.draw(generator, 0.5) for _ in range(2000)])
    torch.testing.assert_close(samples.mean(dim=0), visual.vectors, atol=0.03, rtol=0)
    torch.testing.assert_close(samples.std(dim=0), visual.deviations, atol=0.03, rtol=0)


def test_visual_anchors_are_the_means_of_what_the_pretrained_network_says_of_each_class(data: TrainingSet) -> None:
    weights = small_backbone()
    features = sketch_an_anchor.compute_features(RECIPE.config, weights, data.photos, data.key)
    photo = data.photos[5:6].float() / 255
    small = torch.nn.functional.interpolate(photo, size=(64, 64), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(small_vit().forward_features(small * 2 - 1)[:, 0], dim=1)
    torch.testing.assert_close(features[5:6], expected, atol=0.02, rtol=0)
    of_classes = sketch_an_anchor.VisualAnchors.of_features(features, data.photo_rows)
    for number, rows in enumerate(data.photo_rows):
        torch.testing.assert_close(of_classes.vectors[number], sum(features[rows]) / len(rows))
    again = sketch_an_anchor.compute_features(RECIPE.config, weights, data.photos[:0], data.key)
    assert torch.equal(again, features), "they are found again without asking"


@pytest.mark.parametrize(("how", "expected"), [("nearest", [2, 0]), ("farthest", [1, 0]), ("chance", None)])
def test_anchors_choose_the_photos(how: Literal["nearest", "farthest", "chance"], expected: list[int] | None) -> None:
    features = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.1], [0.0, 1.0]])
    recipe = dataclasses.replace(RECIPE, photos=2, photos_by=how)
    found = sketch_an_anchor.choose_photos(recipe, features, torch.eye(2), (torch.arange(3), torch.tensor([3])))
    assert found[1].tolist() == [3]
    assert len(set(found[0].tolist())) == 2
    assert expected is None or found[0].tolist() == expected


def test_a_class_is_found_in_any_spelling_by_its_parts_or_by_the_names_that_were_given() -> None:
    words = WordVectors("few.txt", ("Alarm-Clock", "fire", "truck", "pumpkin", "dog", "wolf"), torch.eye(6))
    found = sketch_an_anchor.word_anchors(
        words, ("alarm_clock", "fire_truck", "squash"), {"squash": ["pumpkin"]}, neighbours=2, kept_out=("dog",)
    )
    assert torch.equal(found.vectors[0], torch.eye(6)[0])
    assert torch.equal(found.vectors[1], (torch.eye(6)[1] + torch.eye(6)[2]) / 2)
    assert torch.equal(found.vectors[2], torch.eye(6)[3])
    assert found.neighbours.shape == (3, 2, 6)
    assert not (found.neighbours == torch.eye(6)[4]).all(dim=2).any(), "a word that the training may not know"
    for number, own in enumerate(([0], [1, 2], [3])):
        assert not any((found.neighbours[number] == torch.eye(6)[row]).all(dim=1).any() for row in own)


def test_word2vec_files_are_read_in_all_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gensim.models import KeyedVectors

    table = KeyedVectors(3)
    table.add_vectors(["dog", "cat"], np.arange(6, dtype=np.float32).reshape(2, 3))
    table.save_word2vec_format(str(tmp_path / "v.txt"))
    table.save_word2vec_format(str(tmp_path / "v.bin"), binary=True)
    table.save(str(tmp_path / "v.kv"))
    for name, vectors in (("own", table.vectors), ("odd", np.zeros((3, 2)))):
        np.save(tmp_path / f"{name}.npy", vectors)
        (tmp_path / f"{name}.txt").write_text("dog\ncat\n")
    for name in ("v.txt", "v.bin", "v.kv", "own.npy"):
        found = read_word_vectors(tmp_path / name)
        assert (found.name, found.words) == (name, ("dog", "cat"))
        assert found.vectors.tolist() == [[0, 1, 2], [3, 4, 5]]
    (tmp_path / "odd.bin").write_text("hello")
    for name, sentence in (
        ("none.bin", "there is no file of word vectors at"),
        ("odd.bin", "is not a word2vec file that gensim can read"),
        ("odd.npy", "must have a row for each of the 2 words"),
    ):
        with pytest.raises(ModelError, match=sentence):
            read_word_vectors(tmp_path / name)
    monkeypatch.delenv("SKETCH_SEARCH_DATA", raising=False)
    with pytest.raises(ModelError, match="name a file with --words, or set SKETCH_SEARCH_DATA"):
        read_word_vectors(None)


@needs_shared_data
def test_the_stand_in_has_a_vector_for_every_training_class() -> None:
    recipe, by_clip = read_recipe(Path("sketch-an-anchor/whole")), read_recipe(Path("clip-at/category"))
    assert isinstance(recipe, sketch_an_anchor.AnchorRecipe)
    assert isinstance(by_clip, ClipAtRecipe)
    words = read_word_vectors(None)
    assert "a stand-in for word2vec" in words.name
    labels, others = (read_split(data_folder(), part) for part in ("train", "unseen"))
    assert tuple(class_rows(words, labels, by_clip.names)) == labels
    found = sketch_an_anchor.word_anchors(words, labels, recipe.names, neighbours=10, kept_out=others)
    assert found.vectors.shape == (len(labels), 512)
    assert found.neighbours.shape == (len(labels), 10, 512)
    named = {word for words_of_class in recipe.names.values() for word in words_of_class}
    assert not named & set(others), "words of unseen classes are no names of trained ones"


VIT = PretrainedVit(
    VitLayout(patch_size=16, width=32, depth=4, heads=2, mlp_width=64), 64, small_backbone(), (0.5,) * 3, (0.5,) * 3
)
CLIP_AT = ClipAtRecipe(
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


def clip_at_trainer(data: TrainingSet, texts: torch.Tensor, folder: Path, **changes: Any) -> clip_at.ClipAtTrainer:
    return clip_at.ClipAtTrainer(dataclasses.replace(CLIP_AT, **changes), data, texts, VIT, folder)


def test_categories_and_pairs_have_their_losses(pairs: TrainingSet, texts: torch.Tensor, tmp_path: Path) -> None:
    assert set(clip_at_trainer(pairs, texts, tmp_path / "c").train_step()) == {"triplet", "classes"}
    fine = clip_at_trainer(pairs, texts, tmp_path / "f", level="fine-grained")
    assert set(fine.train_step()) == {"triplet", "classes", "divergence", "patches"}
    weights = ClipAtLosses(classes=0, divergence=0, patches=0)
    alone = clip_at_trainer(pairs, texts, tmp_path / "t", level="fine-grained", losses=weights)
    assert set(alone.train_step()) == {"triplet"}
    assert set(fine.trained.learned.prompts) == {"both"}


@pytest.mark.parametrize("level", ["category", "fine-grained"])
def test_only_prompts_and_layer_norms_change(
    level: Literal["category", "fine-grained"], pairs: TrainingSet, texts: torch.Tensor, tmp_path: Path
) -> None:
    one = clip_at_trainer(pairs, texts, tmp_path, level=level)
    before = {name: tensor.clone() for name, tensor in one.start.state_dict().items()}
    one.run(until=2)
    after = one.trained.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {name for name in before if name.startswith("learned.")}
    names = torch.load(one.state_path)["network"]
    assert not any("encoder" in name for name in names), "the frozen encoder is no part of the state"


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
