"""Reads the parts of the documentation that a test can check: links, anchors, commands and code spans of Markdown."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PAGES = (
    *(CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "weights/CARD.md")),
    *sorted((CHECKOUT / "docs").rglob("*.md")),
)
_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`(?P<text>[^`]+)`")
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(?P<title>.+)$", re.MULTILINE)
# The separators between two commands of a shell.
_SEPARATORS = frozenset({"&&", "||", ";", "|"})
_ASSIGNMENT = re.compile(r"[A-Z_]+=.*")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def links(page: Path) -> list[tuple[Path, str]]:
    """Returns the file of every link and picture of a page, and the anchor in it, "" for none."""
    prose = _SPAN.sub("", _FENCE.sub("", read(page)))
    targets = [match["target"].partition("#") for match in _LINK.finditer(prose)]
    return [
        ((page.parent / path).resolve() if path else page, anchor)
        for path, _, anchor in targets
        if not re.match(r"\w+:", path)
    ]


@cache
def anchors(page: Path) -> frozenset[str]:
    """Returns the anchors of a page's headings, as GitHub names them."""
    titles = [match["title"] for match in _HEADING.finditer(_FENCE.sub("", read(page)))]
    names: list[str] = []
    for title in titles:
        text = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        names.append(text if text not in names else f"{text}-{names.count(text)}")
    return frozenset(names)


def spans(page: Path) -> list[str]:
    """Returns the texts between backticks in the prose and tables of a page, with line ends as spaces."""
    prose = _FENCE.sub("", read(page))
    return [" ".join(match["text"].split()) for match in _SPAN.finditer(prose)]


def shell_commands(page: Path) -> list[list[str]]:
    """Returns the words of every command in the shell blocks of a page; without sudo and without settings in front."""
    blocks = [match["text"] for match in _FENCE.finditer(read(page)) if match["language"] == "sh"]
    return [words for block in blocks for line in block.replace("\\\n", " ").splitlines() for words in commands(line)]


def commands(line: str) -> Iterator[list[str]]:
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), ";"]:
        if word.rstrip(";") and word not in _SEPARATORS:
            words.append(word.rstrip(";"))
        if word in _SEPARATORS or word.endswith(";"):
            while words and (words[0] == "sudo" or _ASSIGNMENT.fullmatch(words[0])):
                words.pop(0)
            if words:
                yield words
            words = []
