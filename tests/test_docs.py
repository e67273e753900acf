"""The documentation tells the truth: links, commands, settings, paths and figures."""

import json
import re
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from sketch_search.indexer.commands import index
from sketch_search.model.command_line import CommandGroup
from sketch_search.model.commands import model
from sketch_search.model.engine import file_sha256
from sketch_search.model.images.formats import FORMATS
from sketch_search.service.commands import application
from sketch_search.service.settings import Settings
from sketch_search.training.commands import training
from sketch_search.training.pages import FIGURE, Published, read_blocks
from tests.documents import CHECKOUT, PAGES, anchors, commands, links, read, shell_commands, spans
from tests.programs import all_commands, commands_of, options_of, parse

README = CHECKOUT / "README.md"
HTTP = CHECKOUT / "docs" / "http.md"
EXPERIMENTS = CHECKOUT / "docs" / "research" / "networks.md"
NETWORKS, QUALITY, SPEED = (CHECKOUT / "docs" / f"{name}.md" for name in ("networks", "quality", "speed"))
MAKEFILE = read(CHECKOUT / "Makefile")
COMPOSE = read(CHECKOUT / "docker-compose.yml")

# Programs that the pages name and that are not the project's.
OTHERS = {".", "cc", "cd", "curl", "docker", "export", "git", "pip", "cp", "systemctl", "python3", "ray"}
OTHER_MODULES = {"build", "mypy", "pip", "pytest", "ruff", "twine", "venv"}
# Options in the prose that belong to these programs.
OTHER_OPTIONS = {"--index-url", "--profile"}
PUBLISHED = Published.read()
of_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(CHECKOUT).as_posix())


@of_page
def test_every_link_and_picture_leads_somewhere(page: Path) -> None:
    found = links(page)
    assert [file for file, _ in found if not (file.exists() and file.is_relative_to(CHECKOUT))] == []
    assert [(file, anchor) for file, anchor in found if anchor and anchor not in anchors(file)] == []


@of_page
def test_every_command_in_a_shell_block_would_run_and_those_in_the_prose_have_these_names(page: Path) -> None:
    blocks = [(words, _check_parses) for words in shell_commands(page)]
    begins = re.compile(r"(\.venv/bin/)?(python -m|sketch-search|make) ").match
    prose = [(words, _check_names) for span in spans(page) if begins(span) for words in commands(span)]
    for words, check in [*blocks, *prose]:
        program, *arguments = _program(words)
        if program == "make":
            _check_make(arguments)
        elif program.startswith("tests."):
            _check_own_module(program, arguments)
        elif program in PROGRAMS:
            check(program, arguments)
        elif check is _check_parses:
            assert program in OTHERS | OTHER_MODULES, f"{words}: what is {program}?"


@of_page
def test_every_option_in_the_prose_is_one_of_some_command(page: Path) -> None:
    known = {
        option
        for program in (application, training)
        for command in all_commands(program)
        for option in options_of(command)
    }
    for bench in ("command", "clicks"):
        known |= set(re.findall(r'"(--[a-z-]+)"', read(CHECKOUT / "tests" / "benchmarks" / f"{bench}.py")))
    for span in spans(page):
        if span.startswith("--"):
            assert span.split()[0] in known | OTHER_OPTIONS, span


def test_the_readme_fits_two_screens() -> None:
    assert len(read(README).splitlines()) <= 150


OF_SHELLS_AND_TESTS = {f"SKETCH_SEARCH_{name}" for name in ("COMPLETE", "DATA", "REQUIRE")}


@of_page
def test_every_variable_named_is_a_setting_or_one_of_the_compose_file(page: Path) -> None:
    known = {f"SKETCH_SEARCH_{name.upper()}" for name in Settings.model_fields}
    known |= {*re.findall(r"\$\{(SKETCH_SEARCH_\w+)", COMPOSE), *OF_SHELLS_AND_TESTS}
    assert set(re.findall(r"SKETCH_SEARCH_[A-Z_]+[A-Z]", read(page))) <= known


def test_every_setting_is_documented() -> None:
    documented = set(re.findall(r"`(SKETCH_SEARCH_\w+)`", read(HTTP)))
    assert {f"SKETCH_SEARCH_{name.upper()}" for name in Settings.model_fields} <= documented


def test_pages_the_package_and_the_page_name_the_formats_of_the_table() -> None:
    using, project = read(CHECKOUT / "docs" / "using.md"), tomllib.loads(read(CHECKOUT / "pyproject.toml"))["project"]
    sentence = re.search(r"Pictures may be (.*?) \(as it was saved.*?with the extras, (.*?) \(by", using, re.DOTALL)
    assert sentence is not None
    plain, further = ([row.name for row in FORMATS if not row.drawing and bool(row.extra) == more] for more in (0, 1))
    assert [re.split(r",\s|\sand\s", names) for names in sentence.groups()] == [plain, further]
    for row in FORMATS:
        assert row.extra is None or (row.extra in project["optional-dependencies"] and f"`{row.extra}`" in using)
        assert not row.drawing or re.search(rf"\ban? {row.name}\b", using)
    (accepted,) = re.findall(r'id="file" accept="image/\*,([^"]+)"', read(CHECKOUT / "service" / "page" / "index.html"))
    assert {*accepted.split(",")} <= {suffix for row in FORMATS for suffix in row.suffixes}


def test_every_path_and_parameter_of_the_http_api_is_documented() -> None:
    document: dict[str, Any] = json.loads(read(CHECKOUT / "service" / "http" / "openapi.json"))
    text = read(HTTP)
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            assert f"`{verb.upper()} {path}`" in text
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "query":
                    assert re.search(rf"`{parameter['name']}\b", text), parameter["name"]


def test_every_measured_part_has_its_block_among_the_figures() -> None:
    sources = "".join(map(read, (CHECKOUT / "tests" / "benchmarks").glob("*.py")))
    measured = set(re.findall(r'(?:command\.result\(\s*|name=)"([A-Z][\w ]+)"', sources))
    assert read_blocks(read(SPEED)).keys() == measured
    assert "Shards" in measured


def test_the_glossary_names_the_classes_that_have_the_names_of_its_terms() -> None:
    text = read(CHECKOUT / "docs" / "glossary.md")
    sources = (file for package in ("model", "indexer", "service") for file in (CHECKOUT / package).rglob("*.py"))
    classes = set(re.findall(r"^class (\w+)", "\n".join(map(read, sources)), re.MULTILINE))
    terms = re.findall(r"^- \*\*([\w ]+)\*\*", text, re.MULTILINE)
    capitalised = {term.title().replace(" ", "") for term in terms}
    assert {*re.findall(r"`([A-Z]\w+)`", text)} >= classes & {name + end for name in capitalised for end in ("", "s")}
    assert {*re.findall(r"`([A-Z]\w+)`", text)} <= classes


def test_no_table_is_older_than_the_bench_that_measures_it() -> None:
    measured = re.findall(r", (\w{8}): `python -m (tests\.benchmarks\.\w+)", read(SPEED))
    assert len(measured) >= 7
    for commit, module in measured:
        # The names of variables and modules change nothing that is measured.
        renamed, file = "(SBIR|SKETCH_SEARCH)_|^(from|import) ", f"{module.replace('.', '/')}.py"
        asked = ["git", "diff", "-I", renamed, commit, "--", file]
        told = subprocess.run(asked, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        # A checkout without its history does not know the commit.
        assert told.returncode or not told.stdout, f"{module} changed after its table was made: run it again"


def test_published_blocks_are_as_declared_and_a_figure_is_the_same_wherever_it_is_printed() -> None:
    pages = {page: read_blocks(read(page)) for page in (README, QUALITY, EXPERIMENTS)}
    assert {(CHECKOUT / block.page, name) for name, block in PUBLISHED.blocks.items()} == {
        (page, name) for page, blocks in pages.items() for name in blocks if not name.startswith("table ")
    }
    printed: dict[str, str] = {}
    for name, block in PUBLISHED.blocks.items():
        template = block.template(PUBLISHED.commands)
        around = "([^|\n]+?)".join(map(re.escape, FIGURE.sub("\0", template).split("\0")))
        found = re.fullmatch(around, pages[CHECKOUT / block.page][name])
        assert found, f"{name} is not as published.toml declares it: make figures"
        for figure, text in zip(FIGURE.finditer(template), found.groups(), strict=True):
            assert printed.setdefault(figure[0], text) == text, figure[0]
    assert len(printed) > 100


def test_every_command_that_measures_stands_above_one_block_and_no_figure_outside_of_them() -> None:
    assert sorted(name for block in PUBLISHED.blocks.values() for name in block.commands) == sorted(PUBLISHED.commands)
    for page in (README, QUALITY, CHECKOUT / "weights" / "CARD.md"):
        text = read(page)
        for block in read_blocks(text).values():
            text = text.replace(block, "")
        assert re.findall(r"(?<![\d.])[01]\.\d{3}(?![\d.])", text) == []


def test_the_figures_are_of_the_weights_that_are_here() -> None:
    digests = {path.stem: file_sha256(path)[:8] for path in (CHECKOUT / "weights").glob("*.safetensors")}
    named = re.findall(r"weights/([\w-]+)\.safetensors` \(`(\w+)`", read(QUALITY) + read(NETWORKS))
    assert dict(named) == {name: digests[name] for name in ("default", "zero-shot", "zse")}
    as_quick = set(re.findall(r"[\da-f]{8}", "".join(re.findall(r"Weights (.+) ranked otherwise", read(SPEED)))))
    assert set(re.findall(r", weights (\w{8})", read(SPEED))) <= set(digests.values()) | as_quick
    drawn = json.loads(read(CHECKOUT / "docs" / "research" / "figures" / "weights.json"))
    assert {name: digest[:8] for name, digest in drawn.items()} == {name: digests[name] for name in ("default", "zse")}


# By the name that ``_program`` gives.
PROGRAMS: dict[str, click.Command] = {"service": application, "indexer": index, "model": model, "training": training}


def _program(words: Sequence[str]) -> list[str]:
    """Returns the program or module, and its arguments as it would get them."""
    if words[:3] == ["docker", "compose", "run"] and "python" in words:
        words = [word for word in words[words.index("python") :] if word[0] not in "<>"]
    name, *arguments = words
    name = name.removeprefix(".venv/bin/")
    if name == "python" and arguments[0] == "-m":
        name, *arguments = arguments[1:]
    return ["service" if name == "sketch-search" else name, *arguments]


def _check_make(arguments: Sequence[str]) -> None:
    for argument in arguments:
        name, assigned, _ = argument.partition("=")
        pattern = rf"^{name} \??:?=" if assigned else rf"^{name}:"
        assert re.search(pattern, MAKEFILE, re.MULTILINE), f"make {argument}"


def _check_own_module(module: str, arguments: Sequence[str]) -> None:
    own = (CHECKOUT / module.replace(".", "/")).with_suffix(".py")
    # Benches make their parsers as they run, by the options that all have.
    source = "".join(map(read, (own, *(own.with_name(name) for name in ("command.py", "results.py")))))
    assert all(f'"{argument}"' in source for argument in arguments if argument.startswith("-")), arguments


def _check_parses(program: str, arguments: Sequence[str]) -> None:
    try:
        parse(PROGRAMS[program], arguments)
    except click.UsageError as error:
        pytest.fail(f"{program} {' '.join(arguments)}: {error.format_message()}")
    except click.exceptions.Exit:
        pass  # as after --help


def _check_names(program: str, arguments: Sequence[str]) -> None:
    """Checks that command and options exist. In a sentence, other arguments of the command may be left out."""
    command = PROGRAMS[program]
    for argument in arguments:
        inner = commands_of(command)
        if argument in inner:
            command = inner[argument]
        elif isinstance(command, CommandGroup) and command.default is not None and argument not in options_of(command):
            # All arguments are those of the command that runs where none is named.
            command = inner[command.default]
        if argument.startswith("-"):
            assert argument.partition("=")[0] in options_of(command), f"{program} {' '.join(arguments)}"
