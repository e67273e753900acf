"""A real Chromium that looks at the page: as a desktop or a phone, with an empty profile, drawing by pointer."""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import websocket
from selenium import webdriver
from selenium.common.exceptions import JavascriptException, StaleElementReferenceException, TimeoutException
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.interaction import POINTER_MOUSE, POINTER_TOUCH
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.programs import PATIENCE

Browser = webdriver.Chrome
# Features that ask hosts of their own, or start processes that no test needs.
_LEFT_OUT = "OptimizationGuideOnDeviceModel,OptimizationHints,Translate,MediaRouter,BackForwardCache,"
_LEFT_OUT += "ProactivelySwapBrowsingInstance,SpareRendererForSitePerProcess"
Line = Sequence[tuple[float, float]]
SCRIPTS = Path(__file__).parent / "scripts"
# Others ask nobody: data: and blob: are in memory already, chrome: and chrome-untrusted: are the browser itself.
NETWORK_SCHEMES = frozenset({"http", "https", "ws", "wss"})


@dataclass(frozen=True)
class Screen:
    """A screen: its size in CSS pixels, device pixels to each of them, and whether it is a phone's touch screen."""

    name: str
    width: int
    height: int
    ratio: float = 1.0
    phone: bool = False


DESKTOP = Screen("desktop", 1440, 900)
LAPTOP = Screen("laptop", 1280, 800)
PHONE = Screen("phone", 360, 740, ratio=2.0, phone=True)
SMALL = Screen("small phone", 320, 640, ratio=2.0, phone=True)
TALL = Screen("tall phone", 390, 844, ratio=2.0, phone=True)
LOW = Screen("low laptop", 1366, 707)
WIDE = Screen("wide", 1920, 1000)


@contextmanager
def browser(screen: Screen, *, dark: bool = False, still: bool = False) -> Iterator[Browser]:
    """Chromium with an empty profile, which makes no requests of its own; closed when the block ends.

    ``still``: as for a person who wants nothing to move. Without a graphics card, the processor draws each frame of a
    motion, which takes longer than most tests.
    """
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
            "--disable-extensions",
            "--disable-component-extensions-with-background-pages",
            f"--disable-features={_LEFT_OUT}",
            # The pages of a test are all of one origin: to start a process for each, and one in advance, takes longer
            # than to load them.
            "--renderer-process-limit=1",
            "--disable-site-isolation-trials",
            "--hide-scrollbars",
            # A mouse, which machines without a screen do not have; on a phone the emulation of touch takes it away.
            "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
            f"--user-data-dir={profile}",
            f"--window-size={screen.width},{screen.height}",
            *(["--force-prefers-reduced-motion"] if still else []),
        ):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        options.add_experimental_option("perfLoggingPrefs", {"enablePage": False})
        # The driver is named, so that selenium does not look for one on the network.
        driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            # Below the 120 seconds after which selenium no longer listens to its browser.
            driver.set_script_timeout(PATIENCE / 8)
            emulate(driver, screen, dark=dark)
            yield driver
        finally:
            driver.quit()


def emulate(driver: Browser, screen: Screen, *, dark: bool = False) -> None:
    """Let the browser be one on this screen, with or without a preference for dark pages."""
    metrics = {"width": screen.width, "height": screen.height, "deviceScaleFactor": screen.ratio}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**metrics, "mobile": screen.phone})
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": screen.phone})
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def wait(driver: Browser) -> WebDriverWait[Browser]:
    # Where a busy machine drops a press, nothing more comes: the test runs again, and must not wait long.
    # What the page draws anew while it is read is read again.
    return WebDriverWait(driver, PATIENCE / 4, poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException])


def draw(driver: Browser, screen: Screen, lines: Sequence[Line]) -> None:
    """Draw lines on the paper: with a mouse, or with a finger on a phone. From -1 to 1, x to the right, y down."""
    for line in lines:
        stroke(driver, POINTER_TOUCH if screen.phone else POINTER_MOUSE, line)


def stroke(driver: Browser, pointer: str, line: Line, pressure: float = 0.5) -> None:
    """Draw one line with this kind of pointer, which may tell how hard it is pressed, 0 to 1."""
    paper = driver.find_element(By.ID, "paper")
    scale = 0.42 * min(paper.rect["width"], paper.rect["height"])
    actions = ActionBuilder(driver, mouse=PointerInput(pointer, pointer), duration=8)  # type: ignore[no-untyped-call]
    hand: Any = actions.pointer_action
    first, *others = [(round(x * scale), round(y * scale)) for x, y in _dense(line)]
    hand.move_to(paper, *first).pointer_down(pressure=pressure)
    for point in others:
        hand.move_to(paper, *point, pressure=pressure)
    hand.pointer_up()
    actions.perform()


def run(driver: Browser, script: str, *arguments: object) -> Any:
    """Call the function in ``scripts/SCRIPT.js`` with these arguments; what it returns, once it is there."""
    answer = driver.execute_async_script(
        "const [done, ...given] = [...arguments].reverse();"
        f"const call = async () => ({_source(script)})(...given.reverse());"
        "call().then((value) => done({ value }), (error) => done({ error: String(error) }));",
        *arguments,
    )
    if "error" in answer:
        raise AssertionError(f"{script}: {answer['error']}")
    return answer["value"]


@contextmanager
def before_pages(driver: Browser, script: str, *arguments: object) -> Iterator[None]:
    """Call the function in this script in every page that is loaded within the block, before its own scripts run."""
    source = f"({_source(script)})({', '.join(map(json.dumps, arguments))});"
    added = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def forget(driver: Browser) -> None:
    driver.execute_script("try { sessionStorage.clear(); } catch { /* no page, or one that may not store anything */ }")
    driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "all"})


def download_to(driver: Browser, folder: Path) -> None:
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})


def wait_for_photos(driver: Browser, first: Callable[[Browser], object] = bool) -> None:
    """Wait until what is to come first holds, and then until the search has ended and every photo in sight is shown."""

    def shown(driver: Browser) -> bool:
        try:
            # The page waits by itself: to ask it over and over takes more of the processor than the search.
            run(driver, "photos_shown")
        except (JavascriptException, TimeoutException):
            # Another page has been loaded meanwhile, or the machine is busy.
            return False
        return True

    wait(driver).until(first)
    wait(driver).until(shown)


def complaints(driver: Browser) -> list[str]:
    return [entry["message"] for entry in _log(driver, "browser")]


def requested(driver: Browser) -> list[str]:
    """Returns the network addresses that the page has asked for since the last call."""
    logged = [entry["message"] for entry in _log(driver, "performance")]
    # Most entries are of something else, and to read them all takes long.
    entries = [json.loads(message) for message in logged if 'Network.requestWillBeSent"' in message]
    # The browser's own pages have targets of their own.
    messages = [entry["message"] for entry in entries if entry["webview"] == driver.current_window_handle]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if urlsplit(url).scheme in NETWORK_SCHEMES]


@contextmanager
def task_lengths(driver: Browser) -> Iterator[list[float]]:
    """Gives a list that has, after the block, the milliseconds of processor time of each task of pages within it.

    Unlike the time that passes, they do not depend on what else the machine does.
    """
    address = driver.capabilities["goog:chromeOptions"]["debuggerAddress"]
    about = httpx.get(f"http://{address}/json/version").json()
    connection = websocket.create_connection(about["webSocketDebuggerUrl"], suppress_origin=True, timeout=PATIENCE)
    categories = {"includedCategories": ["devtools.timeline", "disabled-by-default-devtools.timeline"]}
    lengths, events = list[float](), list[dict[str, Any]]()
    try:
        connection.send(json.dumps({"id": 1, "method": "Tracing.start", "params": {"traceConfig": categories}}))
        while json.loads(connection.recv()).get("id") != 1:
            pass
        yield lengths
        connection.send(json.dumps({"id": 2, "method": "Tracing.end"}))
        while (message := json.loads(connection.recv())).get("method") != "Tracing.tracingComplete":
            events += message.get("params", {}).get("value", [])
    finally:
        connection.close()
    pages = {(event["pid"], event["tid"]) for event in events if event["name"] == "FunctionCall"}
    tasks = [event for event in events if event["name"] == "RunTask" and (event["pid"], event["tid"]) in pages]
    lengths += [event.get("tdur", 0) / 1000 for event in tasks]


def settle(driver: Browser) -> None:
    """Wait until nothing moves: an image fades in once it is there."""
    wait(driver).until(
        lambda d: d.execute_script("return document.getAnimations().every((a) => a.playState !== 'running')")
    )


def picture(driver: Browser, file: Path) -> None:
    settle(driver)
    file.write_bytes(driver.get_screenshot_as_png())


def _source(script: str) -> str:
    return f"\n{(SCRIPTS / f'{script}.js').read_text(encoding='utf-8')}"


def _log(driver: Browser, kind: str) -> list[dict[str, Any]]:
    return driver.get_log(kind)  # type: ignore[no-untyped-call]


def _dense(line: Line, least: float = 0.08, most: float = 0.75) -> Iterator[tuple[float, float]]:
    """The line with points about ``least`` to ``most`` apart: the browser takes a frame for each of them."""
    x0, y0 = line[0]
    yield x0, y0
    for i, (x1, y1) in enumerate(line[1:], 2):
        way = math.dist((x0, y0), (x1, y1))
        # The end of a line stays where it is.
        if way < least and i < len(line):
            continue
        parts = max(1, math.ceil(way / most))
        for part in range(1, parts + 1):
            yield x0 + (x1 - x0) * part / parts, y0 + (y1 - y0) * part / parts
        x0, y0 = x1, y1
