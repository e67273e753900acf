"""Reads the page for its tests, and waits for it, in a real browser."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image
from selenium.webdriver.common.by import By

from sketch_search.service.settings import Settings
from tests import browser
from tests.browser import DESKTOP, PHONE, Browser, Screen, draw, run, wait, wait_for_photos
from tests.pictures import strokes
from tests.service.served import Served, served

# The drawing of the current step, in the browser's storage.
STORED = "sessionStorage['sketch-search-drawing ' + sessionStorage['sketch-search-drawing']]"


def forgetful(driver: Browser) -> Browser:
    """Returns the browser without anything that the previous test has left in it."""
    browser.forget(driver)
    driver.get("about:blank")
    browser.complaints(driver)
    browser.requested(driver)
    return driver


@contextmanager
def on_screen(opened: Browser, screen: Screen, *, dark: bool = False) -> Iterator[Browser]:
    """The browser of all tests, forgetful and on this screen until the block ends; then `check_quiet` has to hold."""
    browser.emulate(opened, screen, dark=dark)
    try:
        yield forgetful(opened)
        check_quiet(opened)
    finally:
        browser.emulate(opened, DESKTOP)


@contextmanager
def served_to(driver: Browser, settings: Settings, app: FastAPI | None = None, **changes: object) -> Iterator[Served]:
    """Serve as `served` does; the page is left before the server ends, so that it does not complain of that."""
    with served(settings, app, **changes) as server:
        yield server
        driver.get("about:blank")


def find(driver: Browser, server: Served, shape: str = "star", screen: Screen = DESKTOP) -> None:
    driver.get(server.url)
    draw(driver, screen, strokes(shape))
    wait_for_photos(driver)


def text(driver: Browser, name: str) -> str:
    return driver.find_element(By.ID, name).text


def ends_with(driver: Browser, name: str, end: str) -> bool:
    return text(driver, name).endswith(end)


def wait_for_notice(driver: Browser, title: str) -> None:
    wait(driver).until(lambda d: text(d, "notice-title") == title)


def paper(driver: Browser, name: str = "paper") -> NDArray[np.uint8]:
    url = driver.execute_script("return document.getElementById(arguments[0]).toDataURL()", name)
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def ink(driver: Browser) -> float:
    return float((paper(driver).mean(axis=2) < 128).mean())


def last_search(driver: Browser) -> bytes:
    """Returns the body of the last search, in a page with the script ``record_searches``."""
    url: str = run(driver, "last_search")
    return base64.b64decode(url.partition(",")[2])


def check_quiet(driver: Browser) -> None:
    """The console is empty, and the page has asked no other host than servers of the tests."""
    assert browser.complaints(driver) == []
    assert {urlsplit(url).hostname for url in browser.requested(driver)} <= {"127.0.0.1"}


def expect_complaints(driver: Browser, words: str) -> None:
    """The console complains, each time in these words, which are forgotten."""
    told = browser.complaints(driver)
    assert told
    assert [one for one in told if words not in one] == []


def axe_complaints(driver: Browser) -> list[str]:
    """Returns the problems that axe finds on the page as it is now; skips the test if axe is not installed."""
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    # Elements that fade in have less contrast on the way, and so have photos of the drawing before the last stroke.
    wait(driver).until(lambda d: not d.find_elements(By.CSS_SELECTOR, ".found.stale"))
    browser.settle(driver)
    if not driver.execute_script("return 'axe' in window"):
        driver.execute_script(resources.files(axe).joinpath("axe.min.js").read_text(encoding="utf-8"))
    return run(driver, "axe_complaints")


def check_suits_everybody(driver: Browser, screen: Screen = PHONE) -> None:
    """Axe finds nothing wrong, and nothing is wider than the screen."""
    assert axe_complaints(driver) == []
    assert driver.execute_script("return document.documentElement.scrollWidth") <= screen.width


def choose(driver: Browser, selector: str) -> None:
    """Press what this selector finds in the menu of how to search and what to show, which is closed again."""
    summary = driver.find_element(By.CSS_SELECTOR, "#settings summary")
    summary.click()
    driver.find_element(By.CSS_SELECTOR, f"#settings {selector}").click()
    summary.click()


def parts(driver: Browser) -> dict[str, Any]:
    """Returns the query as the page shows it; see ``scripts/parts_shown.js``."""
    return run(driver, "parts_shown")


def names(driver: Browser) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelectorAll('#results .name')].map((name) => name.textContent)"
    )


def searches(driver: Browser) -> list[dict[str, list[str]]]:
    """Returns the parameters of the searches since the last call, but for those by the examples of the start page."""
    asked = [urlsplit(url) for url in browser.requested(driver)]
    return [parse_qs(url.query) for url in asked if url.path == "/search" and "quality=fast" not in url.query]


def wait_for_search(driver: Browser, hash_: str) -> None:
    """Wait until the address has this end, and what it asks for is shown."""
    wait_for_photos(driver, lambda d: parts(d)["hash"] == hash_)
