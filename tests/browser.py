"""A real Chromium for looking at the page: started bare, on a desk or as a phone, and drawing with its own pointer."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.interaction import POINTER_MOUSE, POINTER_TOUCH
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

Browser = webdriver.Chrome
Line = Sequence[tuple[float, float]]
PATIENCE = 60


@dataclass(frozen=True)
class Screen:
    """What the browser is to be: CSS pixels, pixels to each of them, and whether it is a phone with a touch screen."""

    name: str
    width: int
    height: int
    ratio: float = 1.0
    phone: bool = False


DESKTOP = Screen("desktop", 1440, 900)
LAPTOP = Screen("laptop", 1280, 800)
WIDE = Screen("wide", 2560, 1440)
PHONE = Screen("phone", 360, 740, ratio=2.0, phone=True)


def missing() -> str | None:
    """Why no browser can be started here; None where one can."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"there is no {program} here; Debian has it in chromium and chromium-driver"
    return None


@contextmanager
def browser(screen: Screen, *, dark: bool = False) -> Iterator[Browser]:
    """Chromium with an empty profile and nothing of its own to do on the network; gone when the block ends."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    with tempfile.TemporaryDirectory(prefix="sketch-search-browser-", ignore_cleanup_errors=True) as profile:
        for flag in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            f"--window-size={screen.width},{screen.height}",
        ):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        # The driver is named, so that selenium does not look for one on the network.
        driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            driver.set_script_timeout(PATIENCE)
            _become(driver, screen, dark)
            yield driver
        finally:
            driver.quit()


def wait(driver: Browser) -> WebDriverWait[Browser]:
    """Waits until something holds, and fails after PATIENCE seconds."""
    return WebDriverWait(driver, PATIENCE, poll_frequency=0.05)


def draw(driver: Browser, screen: Screen, lines: Sequence[Line]) -> None:
    """Draw lines on the paper: with a mouse, or with a finger on a phone. From -1 to 1, x to the right, y down."""
    for line in lines:
        stroke(driver, POINTER_TOUCH if screen.phone else POINTER_MOUSE, line)


def stroke(driver: Browser, pointer: str, line: Line, pressure: float = 0.5) -> None:
    """Draw one line with this kind of pointer, which may tell how hard it is pressed, 0 to 1."""
    paper = driver.find_element(By.ID, "paper")
    scale = 0.42 * paper.rect["width"]
    actions = ActionBuilder(driver, mouse=PointerInput(pointer, pointer), duration=8)  # type: ignore[no-untyped-call]
    hand: Any = actions.pointer_action
    first, *others = [(round(x * scale), round(y * scale)) for x, y in _dense(line)]
    hand.move_to(paper, *first).pointer_down(pressure=pressure)
    for point in others:
        hand.move_to(paper, *point, pressure=pressure)
    hand.pointer_up()
    actions.perform()


def forget(driver: Browser) -> None:
    """Empty what pages have stored."""
    driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "all"})


def download_to(driver: Browser, folder: Path) -> None:
    """Where files go that a page hands out."""
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})


def wait_for_photos(driver: Browser) -> None:
    """Wait until the search has ended and every photo in sight is shown."""
    wait(driver).until(
        lambda d: d.execute_script(
            "const seen = [...document.querySelectorAll('#results .frame')]"
            "  .filter((frame) => frame.getBoundingClientRect().top < innerHeight);"
            "return document.querySelectorAll('#results li').length > 0"
            "  && document.getElementById('results').getAttribute('aria-busy') === 'false'"
            "  && seen.every((frame) => frame.classList.contains('here'))"
        )
    )


def complaints(driver: Browser) -> list[str]:
    """What the browser's console has said since the last call."""
    return [entry["message"] for entry in _log(driver, "browser")]


def requested(driver: Browser) -> list[str]:
    """The addresses asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in _log(driver, "performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def settle(driver: Browser) -> None:
    """Wait until nothing moves: an image fades in once it is there."""
    wait(driver).until(
        lambda d: d.execute_script("return document.getAnimations().every((a) => a.playState !== 'running')")
    )


def picture(driver: Browser, file: Path) -> None:
    """Write what the screen shows as a PNG file."""
    settle(driver)
    file.write_bytes(driver.get_screenshot_as_png())


def _log(driver: Browser, kind: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = driver.get_log(kind)  # type: ignore[no-untyped-call]
    return entries


def _become(driver: Browser, screen: Screen, dark: bool) -> None:
    metrics = {"width": screen.width, "height": screen.height, "deviceScaleFactor": screen.ratio}
    commands: list[tuple[str, dict[str, object]]] = [
        ("Emulation.setDeviceMetricsOverride", {**metrics, "mobile": screen.phone}),
        ("Emulation.setTouchEmulationEnabled", {"enabled": screen.phone}),
        (
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]},
        ),
    ]
    for command, parameters in commands:
        driver.execute_cdp_cmd(command, parameters)


def _dense(line: Line, step: float = 0.12) -> Iterator[tuple[float, float]]:
    """The line with points no further apart than ``step``, as a hand would leave them."""
    yield line[0]
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        parts = max(1, math.ceil(math.dist((x0, y0), (x1, y1)) / step))
        for i in range(1, parts + 1):
            yield x0 + (x1 - x0) * i / parts, y0 + (y1 - y0) * i / parts
