"""The page's modules by themselves: their types, and their pure functions, which Node's own runner tests."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.documents import CHECKOUT, read

HERE = Path(__file__).parent
PAGE = CHECKOUT / "service" / "page"
INDEX = read(PAGE / "index.html")
TSC = HERE / "node_modules" / "typescript" / "bin" / "tsc"
# From here on, Node sees by itself that a file is a module.
OLDEST = (20, 19)


@pytest.fixture(scope="module")
def node() -> str:
    program = shutil.which("node")
    if program is None:
        pytest.skip("Node is not installed; Debian has it in nodejs")
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if tuple(map(int, re.findall(r"\d+", printed)[:2])) < OLDEST:
        pytest.skip(f"Node is {printed.strip()}; 20.19 or newer is needed")
    return program


def test_pure_functions_do_what_their_tests_in_javascript_say(node: str) -> None:
    tests = sorted(map(str, HERE.glob("*.test.mjs")))
    assert tests
    done = subprocess.run([node, "--test", *tests], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_types_hold_in_the_page_and_none_is_left_open_where_it_draws_and_asks(node: str) -> None:
    if not TSC.exists():
        pytest.skip(f"TypeScript is not installed; `npm ci --prefix {HERE.relative_to(CHECKOUT)}` installs it")
    done = subprocess.run([node, str(TSC), "-p", str(HERE)], capture_output=True, text=True, check=False)
    told = re.findall(r"service/page/(\S+)\(.* error (TS\d+)", done.stdout)
    # The codes of what is any because nothing says its type begin so.
    assert [code for _, code in told if not code.startswith("TS70")] == []
    assert [file for file, _ in told if file.startswith(("asking", "drawing", "shared"))] == []
    assert (bool(told), done.stderr) == (bool(done.returncode), "")


def test_no_type_is_any_where_the_page_draws_and_asks() -> None:
    files = [file for room in ("drawing", "asking") for file in (PAGE / room).glob("*.js")]
    tags = {file.name: re.findall(r"@(?:type|param|typedef)\b.*\bany\b(?=[\]})>,;| ]).*", read(file)) for file in files}
    assert len(tags) > 10
    assert {name: found for name, found in tags.items() if found} == {}


def test_the_page_has_the_elements_that_its_types_name() -> None:
    named = re.findall(r'Record<\s*((?:\|?\s*"[\w-]+"\s*)+),\s*HTML(\w+)Element', read(PAGE / "types.d.ts"))
    tags = {"Anchor": "a", "Image": "img"}
    elements = [
        (tags.get(kind, kind.lower()), name) for names, kind in named for name in re.findall(r'"([\w-]+)"', names)
    ]
    assert len(elements) > 20
    missing = [(kind, name) for kind, name in elements if not re.search(rf'<{kind}\b[^>]*\sid="{name}"', INDEX)]
    assert missing == []
