"""Writes tables into pages between marks, from what the commands that measure them print.

A block stands between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``. published.toml says of each block which
commands its figures come from.
"""

import ast
import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from sketch_search import weights
from sketch_search.model.engine import file_sha256
from sketch_search.model.engine.surface import processor as arithmetic
from sketch_search.model.errors import ModelError
from sketch_search.model.torch.checkpoint import replacing
from sketch_search.training.corpus import DATA_VARIABLE

PUBLISHED = Path(__file__).with_name("published.toml")
WEIGHTS = Path(weights.__file__).parent
_BLOCK = re.compile(r"^<!-- begin: (?P<name>.+) -->\n(?P<text>.*?)^<!-- end: (?P=name) -->$", re.MULTILINE | re.DOTALL)
#: A figure of a block: its path in the records, and its format; without one, decimals have three digits.
FIGURE = re.compile(r"\{(?P<path>[^{}:]+)(?::(?P<format>[^{}]+))?\}")
KEPT = Path("build/figures")
#: In the cells of columns, this stands for the key of each row.
KEY = "*"


def cpu_name() -> str:
    """Returns what the processor calls itself, or its architecture."""
    told = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", told.read_text() if told.exists() else "", re.MULTILINE)
    return str(names[0]) if names else platform.machine()


def processor() -> str:
    """Returns the processor, its cores, and what decides how fast it multiplies, for people."""
    return f"{cpu_name()}, {os.cpu_count()} cores, {arithmetic()}"


def table(lines: Iterable[Sequence[str]]) -> str:
    """Returns a table of Markdown; the first of the lines of cells is its head."""
    head, *rest = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([head, "|---" * (head.count(" | ") + 1) + "|", *rest])


def cell(value: float | str) -> str:
    """Returns the text of a value; decimals have three digits."""
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def record_table(title: str, rows: Mapping[str, Mapping[str, float | str]]) -> str:
    """Returns the table of rows by name, which have the same columns."""
    head = [title, *next(iter(rows.values()))]
    return table([head, *([name, *map(cell, row.values())] for name, row in rows.items())])


def read_blocks(page: str) -> dict[str, str]:
    """Returns the text of every block of a page, by name."""
    return {block["name"]: block["text"].removesuffix("\n") for block in _BLOCK.finditer(page)}


def rewrite_page(path: Path, blocks: Mapping[str, str]) -> None:
    """Puts these texts into the blocks of the page at ``path``, all or nothing. Raises ModelError if one is missing."""
    page = path.read_text(encoding="utf-8")
    for name in blocks.keys() - read_blocks(page).keys():
        raise ModelError(f"{path} has no block from <!-- begin: {name} --> to <!-- end: {name} -->")

    def with_new_text(block: re.Match[str]) -> str:
        name = block["name"]
        return f"<!-- begin: {name} -->\n{blocks[name]}\n<!-- end: {name} -->" if name in blocks else block[0]

    with replacing(path) as partial:
        partial.write_text(_BLOCK.sub(with_new_text, page), encoding="utf-8")


class Block(BaseModel, frozen=True, extra="forbid"):
    """A block of a page: commands, a text, a table, and a text below it. All but the commands may have figures.

    page: from the checkout. columns: titles and cells, in which KEY stands for the row's key. rows: titles with keys,
    or with all further cells.
    """

    page: str
    commands: tuple[str, ...] = ()
    text: str = ""
    columns: dict[str, str] = {}
    rows: dict[str, str | tuple[str, ...]] = {}
    below: str = ""

    def template(self, commands: Mapping[str, str]) -> str:
        """Returns the block with figures as ``FIGURE`` finds them. commands: all, by name."""
        shell = "\n".join(["```sh", *(commands[name] for name in self.commands), "```"]) if self.commands else ""
        cells, lines = [*self.columns.values()][1:], [list(self.columns)]
        for title, row in self.rows.items():
            lines.append([title, *([cell.replace(KEY, row) for cell in cells] if isinstance(row, str) else row)])
        parts = [shell, self.text.strip(), table(lines) if self.rows else "", self.below.strip()]
        return "\n\n".join(filter(None, parts))


class Published(BaseModel, frozen=True, extra="forbid"):
    """All figures that pages show. commands: what measures, by name; each prints JSON by ``--json``.

    Figures below "weights" are the first digits of the shipped checkpoints' SHA-256.
    """

    commands: dict[str, str]
    blocks: dict[str, Block] = Field(alias="block")

    @staticmethod
    def read(path: Path = PUBLISHED) -> "Published":
        return Published.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))

    def of(self, pages: Collection[str], names: Collection[str]) -> "Published":
        """Chooses the blocks of pages, or these blocks; all without either. Raises ModelError for an unknown one."""
        known = {block.page for block in self.blocks.values()}
        if unknown := sorted({*pages} - known) or sorted({*names} - self.blocks.keys()):
            raise ModelError(f"nothing is published as {unknown[0]}; name {', '.join(sorted({*known, *self.blocks}))}")
        chosen = {n: b for n, b in self.blocks.items() if b.page in (pages or known) and n in (names or self.blocks)}
        return self.model_copy(update={"blocks": chosen})

    def measure(self, root: Path) -> dict[str, dict[str, str]]:
        """Runs the commands that the blocks need, and returns the texts of blocks, by page and name.

        root: the checkout, where commands run; KEPT in it has what they printed, so that a stopped run goes on.
        Raises ModelError if a command fails, once the others have run, and for a figure that none has printed.
        """
        templates = {name: block.template(self.commands) for name, block in self.blocks.items()}
        figures = [figure for template in templates.values() for figure in FIGURE.finditer(template)]
        needed = {figure["path"].partition("/")[0] for figure in figures}
        digests = {file.stem: file_sha256(file)[:8] for file in WEIGHTS.glob("*.safetensors")}
        records: dict[str, Any] = {"weights": digests}
        failed, pages = [], dict[str, dict[str, str]]()
        for name in (name for name in self.commands if name in needed):
            try:
                records[name] = measured(self.commands[name], root, root / KEPT / f"{name}.json")
            except ModelError as error:
                failed.append(str(error))
        if failed:
            raise ModelError("; ".join([*failed, f"the others are kept in {KEPT}; run this again to go on"]))
        for name, template in templates.items():
            pages.setdefault(self.blocks[name].page, {})[name] = FIGURE.sub(partial(shown, records), template)
        return pages


def shown(records: Mapping[str, Any], figure: re.Match[str]) -> str:
    """Returns the text of a figure. Raises ModelError if the records have none of this path."""
    value: Any = records
    path = figure["path"]
    while path:
        inner = value if isinstance(value, Mapping) else {}
        # A key may hold strokes.
        keys = [key for key in inner if f"{path}/".startswith(f"{key}/")]
        if not keys:
            raise ModelError(f"{figure[0]} is no figure: {path} is not among {', '.join(inner)}")
        key = max(keys, key=len)
        value, path = value[key], path[len(key) + 1 :]
    if isinstance(value, Mapping):
        return "{value:.3f} ({low:.3f} to {high:.3f})".format_map(value)
    return format(value, figure["format"]) if figure["format"] else cell(value)


def measured(command: str, root: Path, kept: Path) -> Any:
    """Returns what a command prints as JSON, with its processor and day; from ``kept`` if nothing has changed since.

    That is the command, the checkpoints that it names, and the code. Raises ModelError if it fails.
    """
    program, *words = shlex.split(os.path.expandvars(command))
    checkpoints = [root / word for word in words if word.endswith(".safetensors")] or [WEIGHTS / "default.safetensors"]
    # A bench is no part of the package.
    benches = [root / f"{word.replace('.', '/')}.py" for word in words if word.startswith("tests.")]
    try:
        digests = [file_sha256(path) for path in (*checkpoints, *benches)]
    except OSError as error:
        raise ModelError(f"`{command}` needs {error.filename}, which cannot be read") from error
    # What trains and measures calls neither indexer nor service.
    packages = ("model", "training")
    key = [command, *digests, code_digest(*packages, *(("indexer", "service") if benches else ()))]
    if kept.exists() and (record := json.loads(kept.read_text(encoding="utf-8")))["key"] == key:
        return record
    print(f"running {command}", file=sys.stderr, flush=True)
    # The figures are those of the command alone, and not of settings.
    settings = {name for name in os.environ if name.startswith("SKETCH_SEARCH_")} - {DATA_VARIABLE}
    variables = {name: value for name, value in os.environ.items() if name not in settings}
    started = [sys.executable if program == "python" else program, *words, "--json"]
    done = subprocess.run(started, cwd=root, env=variables, stdout=subprocess.PIPE, check=False)
    try:
        result = json.loads(done.stdout) if done.returncode == 0 else None
    except json.JSONDecodeError:
        result = None
    if not isinstance(result, dict):
        raise ModelError(f"`{command} --json` ended with {done.returncode} and without figures")
    record = {"key": key, "processor": processor(), "day": datetime.now(UTC).date().isoformat(), **result}
    kept.parent.mkdir(parents=True, exist_ok=True)
    with replacing(kept) as partial:
        partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return record


def code_digest(*parts: str) -> str:
    """Returns the SHA-256 of all that the modules of these packages do; comments and layout are not part of it."""
    package, digest = WEIGHTS.parent, hashlib.sha256()
    for part in parts:
        for path in sorted((package / part).rglob("*.py")):
            digest.update(f"{path.relative_to(package)} {ast.dump(ast.parse(path.read_bytes()))}".encode())
    return digest.hexdigest()
