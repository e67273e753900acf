"""Sketch-an-Anchor: each equation against a plain slow version, anchors, and whole trainings."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from sketch_search.model.errors import ModelError
from sketch_search.model.training.corpus import data_folder, read_split
from sketch_search.model.training.papers.clip_at import ClipAtRecipe
from sketch_search.model.training.papers.pictures import (
    TrainingSet,
    WordVectors,
    class_rows,
    read_word_vectors,
    training_set,
)
from sketch_search.model.training.papers.sketch_an_anchor import (
    AnchorGraph,
    Anchoring,
    AnchorOptimiser,
    AnchorRecipe,
    Anchors,
    AnchorTrainer,
    VisualAnchors,
    WordAnchors,
    anchored_contrastive_loss,
    choose_photos,
    compute_features,
    info_nce,
    join_edges,
    pad_anchors,
    similarities,
    word_anchors,
)
from sketch_search.model.training.papers.tables import read_recipe
from tests.learning import small_backbone, small_vit, write_class_folders
from tests.networks import randn
from tests.pictures import SHAPES
from tests.requirements import needs_shared_data

SIZES: dict[str, Any] = {"embed_dim": 32, "depth": 4, "num_heads": 2, "mlp_ratio": 2.0}
RECIPE = AnchorRecipe(
    backbone="vit_tiny_patch16_224",
    network={"sizes": SIZES, "image_size": 64, "units": 40},
    steps=6,
    batch=4,
    optimiser=AnchorOptimiser(rate=1e-3, last=0.1, warmup=2),
    anchoring=Anchoring(graph=2),
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
def anchors() -> Anchors:
    visual = VisualAnchors(randn(4, 32, seed=1), randn(4, 32, seed=2).abs() / 10)
    return {"word": WordAnchors(randn(4, 20, seed=3), randn(4, 5, 20, seed=4)), "visual": visual}


def test_equation_1_is_the_log_share_of_each_sketchs_own_photo() -> None:
    sketches, photos = randn(5, 7), randn(5, 7, seed=1)
    expected = 0.0
    for i in range(5):
        shares = softmax([cosine(sketches[i], photos[j]) / 0.1 for j in range(5)])
        expected -= math.log(shares[i]) / 5
    assert float(info_nce(sketches, photos, 0.1)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("labels", "theirs"), [([4, 0, 4], range(5)), ([1, 3, 2], [1, 3, 2])], ids=["3", "4"])
def test_equations_3_and_4_compare_vectors_with_anchors_and_photos(labels: list[int], theirs: Sequence[int]) -> None:
    vectors, compared, anchors = randn(3, 6), randn(len(theirs), 6, seed=1), randn(5, 8, seed=2)
    expected = 0.0
    for vector, label in zip(vectors, labels, strict=True):
        target = softmax([3 * cosine(anchors[label], anchors[other]) for other in theirs])
        shares = softmax([cosine(vector, other) / 0.2 for other in compared])
        expected -= sum(part * math.log(share) for part, share in zip(target, shares, strict=True)) / 3
    alike = similarities(anchors, 3)[torch.tensor(labels)][:, list(theirs)]
    assert float(anchored_contrastive_loss(vectors, compared, alike, 0.2)) == pytest.approx(expected, abs=1e-5)


def test_equation_5_mixes_each_anchor_with_its_own_graph_and_its_twin() -> None:
    words, visuals = randn(3, 4), randn(3, 6, seed=1)
    graph = AnchorGraph(units=6, layers=2, sharpness=3)
    nodes = [[float(x) for x in row] for row in torch.cat([pad_anchors(words, 6), visuals])]
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
    found = join_edges([similarities(words, 3), similarities(visuals, 3)])
    torch.testing.assert_close(found, torch.tensor(edges))
    for layer in graph.layers:
        mixed = [[sum(edges[i][j] * nodes[j][d] for j in range(6)) for d in range(6)] for i in range(6)]
        weight = layer.weight.tolist()  # type: ignore[operator]
        nodes = [[sum(mixed[i][d] * weight[u][d] for d in range(6)) for u in range(6)] for i in range(6)]
    adapted = graph({"word": words, "visual": visuals})
    torch.testing.assert_close(torch.cat([adapted["word"], adapted["visual"]]), torch.tensor(nodes), atol=1e-5, rtol=0)


def test_randomised_anchors_are_words_or_their_neighbours_and_samples_around_means(anchors: Anchors) -> None:
    generator = torch.Generator().manual_seed(0)
    word, visual = anchors["word"], anchors["visual"]
    assert isinstance(word, WordAnchors)
    assert isinstance(visual, VisualAnchors)
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
    features = compute_features(RECIPE.config, weights, data.photos, data.key)
    photo = data.photos[5:6].float() / 255
    small = torch.nn.functional.interpolate(photo, size=(64, 64), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(small_vit().forward_features(small * 2 - 1)[:, 0], dim=1)
    torch.testing.assert_close(features[5:6], expected, atol=0.02, rtol=0)
    of_classes = VisualAnchors.of_features(features, data.photo_rows)
    for number, rows in enumerate(data.photo_rows):
        torch.testing.assert_close(of_classes.vectors[number], sum(features[rows]) / len(rows))
    again = compute_features(RECIPE.config, weights, data.photos[:0], data.key)
    assert torch.equal(again, features), "they are found again without asking"


@pytest.mark.parametrize(("how", "expected"), [("nearest", [2, 0]), ("farthest", [1, 0]), ("chance", None)])
def test_the_photos_of_a_class_are_chosen_by_how_near_they_lie_to_its_anchor(
    how: Literal["nearest", "farthest", "chance"], expected: list[int] | None
) -> None:
    features = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.1], [0.0, 1.0]])
    recipe = dataclasses.replace(RECIPE, photos=2, photos_by=how)
    found = choose_photos(recipe, features, torch.eye(2), (torch.arange(3), torch.tensor([3])))
    assert found[1].tolist() == [3]
    assert len(set(found[0].tolist())) == 2
    assert expected is None or found[0].tolist() == expected


def test_a_class_is_found_in_any_spelling_by_its_parts_or_by_the_names_that_were_given() -> None:
    words = WordVectors("few.txt", ("Alarm-Clock", "fire", "truck", "pumpkin", "dog", "wolf"), torch.eye(6))
    found = word_anchors(
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
    assert isinstance(recipe, AnchorRecipe)
    assert isinstance(by_clip, ClipAtRecipe)
    words = read_word_vectors(None)
    assert "a stand-in for word2vec" in words.name
    labels, others = (read_split(data_folder(), part) for part in ("train", "unseen"))
    assert tuple(class_rows(words, labels, by_clip.names)) == labels
    found = word_anchors(words, labels, recipe.names, neighbours=10, kept_out=others)
    assert found.vectors.shape == (len(labels), 512)
    assert found.neighbours.shape == (len(labels), 10, 512)
    named = {word for words_of_class in recipe.names.values() for word in words_of_class}
    assert not named & set(others), "words of unseen classes are no names of trained ones"


def trainer(data: TrainingSet, anchors: Anchors, folder: Path, **changes: object) -> AnchorTrainer:
    recipe = dataclasses.replace(RECIPE, **changes)  # type: ignore[arg-type]
    return AnchorTrainer(recipe, data, anchors, small_backbone(), folder)


def test_a_step_has_seven_losses_with_anchors_else_one(data: TrainingSet, anchors: Anchors, tmp_path: Path) -> None:
    whole = trainer(data, anchors, tmp_path / "whole").train_step()
    anchored = {f"{name}_{of}" for name in ("word", "visual") for of in ("sketch", "photo", "sample")}
    assert set(whole) == {"nce", *anchored}
    plain = {**RECIPE.network, "anchors": []}
    assert set(trainer(data, {}, tmp_path / "plain", network=plain).train_step()) == {"nce"}
    alone = {**RECIPE.network, "anchors": ["visual"]}
    visual = trainer(data, {"visual": anchors["visual"]}, tmp_path / "alone", network=alone)
    assert set(visual.train_step()) == {"nce", "visual_sketch", "visual_photo", "visual_sample"}
    assert visual.network.network.config.width == 40
