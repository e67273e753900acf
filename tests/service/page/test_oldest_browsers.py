"""The page in the oldest browsers that it promises: Safari 16.4, Firefox 115, Chrome and Edge 109."""

import re
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from tests.browser import Browser, before_pages
from tests.requirements import needs_browser
from tests.service.looking import axe_complaints, find, text
from tests.service.served import Served

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "service" / "page"
CODE = "".join(file.read_text() for file in PAGE.rglob("*.js"))
STYLES = re.sub(r"/\*.*?\*/", "", "".join(file.read_text() for file in PAGE.rglob("*.css")), flags=re.DOTALL)
# What came into the last of the three after the version that is promised, by MDN's compatibility data.
NAMES = """
Map.groupBy Object.groupBy Promise.withResolvers Promise.try Array.fromAsync Math.sumPrecise Error.isError RegExp.escape
Array.prototype.toSorted Array.prototype.toReversed Array.prototype.toSpliced Array.prototype.with
Set.prototype.union Set.prototype.intersection Set.prototype.difference Set.prototype.symmetricDifference
Set.prototype.isSubsetOf Set.prototype.isSupersetOf Set.prototype.isDisjointFrom Map.prototype.getOrInsert
String.prototype.isWellFormed String.prototype.toWellFormed Uint8Array.fromBase64 Uint8Array.prototype.toBase64
Uint8Array.prototype.toHex ArrayBuffer.prototype.transfer Iterator.prototype.map Iterator.prototype.filter
Iterator.prototype.take Iterator.prototype.drop Iterator.prototype.toArray Iterator.prototype.some Iterator.from
AbortSignal.any AbortSignal.timeout URL.canParse URL.parse Blob.prototype.bytes Response.prototype.bytes Response.json
Element.prototype.ariaLabel Element.prototype.ariaPressed Element.prototype.ariaExpanded Element.prototype.role
Element.prototype.checkVisibility Element.prototype.getHTML Element.prototype.setHTMLUnsafe
PointerEvent.prototype.getCoalescedEvents CanvasRenderingContext2D.prototype.reset window.requestIdleCallback
HTMLElement.prototype.showPopover HTMLElement.prototype.togglePopover HTMLDialogElement.prototype.requestClose
Document.prototype.startViewTransition Document.prototype.caretPositionFromPoint window.ClipboardItem
"""
NEWER = NAMES.split()
# Names that other objects have, too, and what oldest.js adds or the page does without.
ELSEWHERE = "with try map filter take drop some from parse any json bytes union escape transfer difference reset"
ELSEWHERE += " ariaLabel ariaPressed ariaExpanded role getCoalescedEvents"
CALLED = re.compile(rf"\.({'|'.join({one.rpartition('.')[2] for one in NEWER} - {*ELSEWHERE.split()})})\b")
# Reflected attributes that oldest.js does not add; sets of characters and flags of patterns; declarations.
SYNTAX = re.compile(
    r"\baria(?!Label\b|Pressed\b|Expanded\b)[A-Z]\w+|/[dgimsuy]*v[dgimsuy]*[,;.)]|\(\?[ims-]+:|\busing \w+ ="
)
STYLE = re.compile(
    r"light-dark\(|(?<!\(color: )color-mix\([^;]*;|oklch\(|@scope|@starting-style|\bcalc-size\(|&|@container style"
)
SUPPORTED = re.compile(r"@supports \([^{]*\{(?:[^{}]|\{[^{}]*\})*\}")
OLDEST = "Safari 16.4, Firefox 115, Chrome or Edge 109"


def test_the_code_names_nothing_that_the_oldest_browsers_lack() -> None:
    assert not [found.group() for rule in (CALLED, SYNTAX) for found in rule.finditer(CODE)]


@pytest.mark.parametrize("code", ["Map.groupBy(a, b)", "[].toSorted()", "/[a--b]/v.test(a)", "b.ariaBusy = a"])
def test_what_the_oldest_browsers_lack_is_noticed(code: str) -> None:
    assert CALLED.search(code) or SYNTAX.search(code)


def test_the_oldest_browsers_read_all_rules_of_a_style_but_those_of_newer_selectors() -> None:
    rules = SUPPORTED.sub("", STYLES)
    assert not STYLE.findall(rules)
    # Firefox 115 has no :has(), and leaves out a list with it, unless :is() holds the list.
    while (outer := re.sub(r"\([^()]*\)", "", rules)) != rules:
        rules = outer
    assert not [one for one in re.findall(r"[^{};]+(?=\{)", rules) if "," in one and ":has" in one]


@needs_browser
def test_the_page_draws_searches_and_names_everything_in_a_browser_of_2023(desk: Browser, server: Served) -> None:
    with before_pages(desk, "of_2023", NEWER):
        find(desk, server)
        assert desk.execute_script("return 'groupBy' in Map") is False
        best = desk.find_element(By.CSS_SELECTOR, "#results .photo")
        assert str(best.get_attribute("aria-label")).startswith("1:")
        chosen = desk.find_element(By.ID, "choose")
        for pressed in ("true", "false"):
            chosen.click()
            assert chosen.get_attribute("aria-pressed") == pressed
        assert axe_complaints(desk) == []


@needs_browser
def test_an_older_browser_is_told_which_ones_the_page_needs(desk: Browser, server: Served) -> None:
    with before_pages(desk, "of_2023", ["CSS.supports"]):
        desk.get(server.url)
        assert OLDEST in text(desk, "too-old")
        assert not desk.find_element(By.TAG_NAME, "main").is_displayed()
    desk.get(server.url)
    assert not desk.find_element(By.ID, "too-old").is_displayed()
    assert OLDEST in (ROOT / "docs" / "using.md").read_text()
