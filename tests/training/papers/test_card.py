"""The card's table of trainings beside its recipes, and its commands, run on a part of the data."""

import re
import tomllib
from pathlib import Path

import pytest

from sketch_search.model.engine import seen_classes
from sketch_search.training.papers.pictures import training_corpora
from sketch_search.training.papers.tables import read_recipe
from sketch_search.training.papers.two_sided import TwoSidedRecipe
from tests.installations import CHECKOUT
from tests.requirements import needs_shared_data

CARD = (CHECKOUT / "weights" / "CARD.md").read_text(encoding="utf-8")
_ROW = re.compile(r"^\| (?P<names>`.+`) \| (?P<numbers>[\d,]+ \| [\d,]+, \d+ \| [\d,]+) \|", re.MULTILINE)
#: What the card says of each recipe: steps, classes, classes with photos, sketches.
SAID = {
    name: [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\d", row["numbers"])]
    for row in _ROW.finditer(CARD)
    for name in re.findall("`(.+?)`", row["names"])
}


def recipe_of(name: str) -> TwoSidedRecipe:
    recipe = read_recipe(Path(f"two-sided/{name}"))
    assert isinstance(recipe, TwoSidedRecipe)
    return recipe


def test_the_card_lists_every_training_that_its_commands_run_and_its_steps() -> None:
    assert set(re.findall(r"training train two-sided/(\S+)", CARD)) == set(SAID)
    assert {name: numbers[0] for name, numbers in SAID.items()} == {name: recipe_of(name).steps for name in SAID}
    assert {recipe_of(name).classes for name in SAID} == {int(re.findall(r"steps of (\d+) sketches", CARD)[0])}


@pytest.mark.parametrize("name", ["default", "zero-shot"])
def test_the_classes_that_a_committed_network_has_seen_are_those_of_the_card(name: str) -> None:
    seen = seen_classes(CHECKOUT / "weights" / f"{name}.safetensors")
    assert seen is not None
    listed = tomllib.loads((CHECKOUT / "weights" / "classes.toml").read_text(encoding="utf-8"))
    groups = {name: {label.replace(" ", "_") for label in labels} for name, labels in listed.items()}
    section = CARD.partition("### Classes")[2].partition("###")[0]
    assert [int(number) for number in re.findall(r"\b\d+\b", section)] == [len(labels) for labels in groups.values()]
    shown = set().union(*(labels for name, labels in groups.items() if not name.startswith("shipped")))
    shipped = set().union(*groups.values())
    assert seen.chosen == groups["validation"]
    if name == "zero-shot":
        assert seen.trained == shown
    else:
        assert seen.trained > shipped > shown


@pytest.mark.soak  # unpacks all archives
@needs_shared_data
@pytest.mark.parametrize(
    "names", [("choose",), ("zero-shot", "seed-11", "seed-12", "shipped-first"), ("shipped", "seed-21", "seed-22")]
)
def test_the_card_has_the_numbers_of_classes_and_sketches_that_the_recipes_choose(names: tuple[str, ...]) -> None:
    pictures = training_corpora(None, recipe_of(names[0]))
    sketches = pictures.training.sketches + pictures.further.sketches
    counts = [len({s.label for s in sketches}), len(pictures.training.labels), len(sketches)]
    for name in names:
        assert recipe_of(name).split == recipe_of(names[0]).split
        assert SAID[name][1:] == counts
