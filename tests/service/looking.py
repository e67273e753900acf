"""How the tests of the page look at it in a real browser."""

from __future__ import annotations

import base64
import io
import re
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from selenium.webdriver.common.by import By

from tests import browser
from tests.browser import Browser, wait
from tests.service.served import Served


def forgetful(driver: Browser) -> Browser:
    """The same browser, once it has forgotten the test before."""
    driver.get("about:blank")
    browser.forget(driver)
    browser.complaints(driver)
    browser.requested(driver)
    return driver


def text(driver: Browser, name: str) -> str:
    return driver.find_element(By.ID, name).text


def ends_with(driver: Browser, name: str, end: str) -> bool:
    return text(driver, name).endswith(end)


def wait_for_notice(driver: Browser, title: str) -> None:
    wait(driver).until(lambda d: text(d, "notice-title") == title)


def paper(driver: Browser, name: str = "paper") -> NDArray[np.uint8]:
    """What is on a canvas: (H, W, 3)."""
    url = driver.execute_script("return document.getElementById(arguments[0]).toDataURL()", name)
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def ink(driver: Browser) -> float:
    """How much of the paper is dark, 0 to 1."""
    return float((paper(driver).mean(axis=2) < 128).mean())


def live_search(driver: Browser, steps: str) -> Any:
    """What a script hands to done(): it has a LiveSearch, the searches asked for, and what has been shown."""
    return driver.execute_async_script(
        """
        const [done] = arguments;
        import("/page/results/live_search.js").then(({ LiveSearch }) => {
          const asked = [], shown = [];
          const ask = (signal) => new Promise((answer, fail) => asked.push({ signal, answer, fail }));
          const found = (answer) => shown.push(answer), trouble = (error) => shown.push(error.message);
          const search = new LiveSearch(ask, { busy: () => {}, found, trouble });
          STEPS
        });
        """.replace("STEPS", f"(async () => {{ {steps} }})();")
    )


def module(driver: Browser, name: str, expression: str, data: object = None) -> Any:
    """The value of an expression that uses what a module of the page exports, and ``data``."""
    names = ", ".join(set(re.findall(r"\b([a-zA-Z]+)\(", expression)) - {"Set", "from", "sort"})
    return driver.execute_async_script(
        f"const [data, done] = arguments; import('/page/{name}').then(({{ {names} }}) => done({expression}));", data
    )


def check_quiet(driver: Browser, server: Served) -> None:
    """Nothing was said in the console, and no other host was asked for anything."""
    assert browser.complaints(driver) == []
    asked = [urlsplit(url) for url in browser.requested(driver)]
    # The rest is the browser's own first tab, and images that are in memory already.
    network = {address.netloc for address in asked if address.scheme not in ("chrome", "data", "blob")}
    assert network == {urlsplit(server.url).netloc}
