"""The card's table of trainings beside its recipes, and its commands, run on a part of the data."""

import gzip
import io
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zlib
from pathlib import Path, PurePosixPath

import pytest

from sketch_search.model import load
from sketch_search.model.engine import seen_classes
from sketch_search.model.training.corpus import data_folder
from sketch_search.model.training.papers.pictures import training_corpora
from sketch_search.model.training.papers.tables import read_recipe
from sketch_search.model.training.papers.two_sided import TwoSidedRecipe
from sketch_search.model.words import spelling
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
    assert set(re.findall(r"model train two-sided/(\S+)", CARD)) == set(SAID)
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


#: So many pictures of each class folder are taken, and one in EVERY of the rest. ImageNet's folders have one or two.
FEWEST, EVERY = 2, 20
#: What is shortened besides: a training takes three steps, and these are measured on few classes.
QUICK = {
    "train": "--set steps=3 --set evaluate_every=3 --set save_every=3 --set choose_share=20"
    " --set evaluate_everything=0 --set classes=16",
    "parting": "--drawings 16",
}


def card_commands() -> list[list[str]]:
    card = (CHECKOUT / "weights" / "CARD.md").read_text(encoding="utf-8")
    block = card.partition("## Training")[2].partition("```sh")[2].partition("```")[0]
    vit = re.findall(r"VIT=(\S+)", block)[0]
    return [shlex.split(line.replace("$VIT", vit))[3:] for line in block.splitlines() if "-m model" in line]


def keep_some(source: Path, target: Path) -> None:
    """Writes an archive with some of another's pictures: with each photo, the sketches that are named after it."""
    seen: dict[PurePosixPath, int] = {}
    with tarfile.open(source) as every, tarfile.open(target, "w:gz", compresslevel=1) as some:
        for member in sorted(every.getmembers(), key=lambda one: one.name):
            path = PurePosixPath(member.name)
            if member.isfile() and path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
                seen[path.parent] = seen.get(path.parent, 0) + 1
                photo = re.sub(r"[-_]\d+$", "", path.stem)
                fewest = 0 if "imagenet1k" in source.name else FEWEST
                if seen[path.parent] > fewest and zlib.crc32(photo.encode()) % EVERY:
                    continue
            content = every.extractfile(member) if member.isfile() else None
            if content is not None and path.suffixes[-2:] == [".jsonl", ".gz"]:
                lines = gzip.compress(b"".join(gzip.decompress(content.read()).splitlines(keepends=True)[::EVERY]))
                member.size, content = len(lines), io.BytesIO(lines)
            some.addfile(member, content)


def write_keywords(images: Path, data: Path, words: list[str]) -> str:
    lines = []
    with tarfile.open(data / "more" / "imagenet1k.tar.gz") as photos:
        members = [one for one in photos.getmembers() if one.isfile() and one.name.endswith(".jpg")]
        for number, member in enumerate(members[: 20 * len(words)]):
            content = photos.extractfile(member)
            assert content is not None
            (images / f"{number}.jpg").write_bytes(content.read())
            lines.append(f"{number},{words[number % len(words)]}\n")
    return "".join(lines)


@pytest.mark.soak  # trains and encodes for a quarter of an hour
@needs_shared_data
def test_the_commands_of_the_card_make_both_networks(tmp_path: Path) -> None:
    source = data_folder() / "data"
    for path in sorted(source.rglob("*")):
        target = tmp_path / "DATA" / "data" / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith(".tar.gz"):
            keep_some(path, target)
        elif path.is_file():
            target.symlink_to(path)
    for folder in ("weights", "images"):
        (tmp_path / folder).mkdir()
    for path in source.glob("*.safetensors"):
        (tmp_path / path.name).symlink_to(path)

    commands = card_commands()
    scenes = next(command for command in commands if command[0] == "scenes")
    words = scenes[scenes.index("--words") + 1].split(",")
    (tmp_path / "training.csv").write_text(write_keywords(tmp_path / "images", source, words))
    environment = {"SKETCH_SEARCH_DATA": str(tmp_path / "DATA"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for command in commands:
        quick = [*command, *QUICK.get(command[0], "").split()]
        if "--device" in quick:
            quick[quick.index("--device") + 1] = "cpu"
        if quick[0] == "scenes":
            # Of fewer pictures, other words are taught before.
            taught = {spelling(name) for names in load(tmp_path / quick[1]).config.words for name in names}
            words = [word for word in words if spelling(word) not in taught]
            quick[quick.index("--words") + 1] = ",".join(words)
        python = [sys.executable, "-m", "sketch_search.model", *quick]
        done = subprocess.run(python, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(quick)}: {done.stderr}"

    twin, default = (load(tmp_path / "weights" / f"{name}.safetensors") for name in ("zero-shot", "default"))
    assert set(map(spelling, words)) <= set(map(spelling, default.book.words))
    assert len(default.engine.config.drawn) > len(twin.engine.config.drawn) > 100
    assert default.photo_sha256 == twin.photo_sha256
