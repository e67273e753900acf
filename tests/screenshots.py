"""Pictures of the page: `python -m tests.screenshots OUT_DIR URL`, of a server that is running.

Those in docs/ are of the sample gallery, as `make demo` serves it, and of a shape of `tests.pictures`. With your
own photos and sketch: `make demo PHOTOS=DIR`, and here `--sketch FILE`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser import (
    DESKTOP,
    LAPTOP,
    PHONE,
    WIDE,
    Browser,
    Screen,
    browser,
    draw,
    missing,
    picture,
    wait,
    wait_for_photos,
)
from tests.pictures import SHAPES, strokes

#: Views of an explanation, as the page names them.
VIEWS = ("parts", "nearest", "look", "kept", "pairs")
SCREENS = {screen.name: screen for screen in (DESKTOP, PHONE, LAPTOP, WIDE)}


def take(driver: Browser, screen: Screen, sketch: str | Path, stem: Path) -> None:
    """Draw a shape or choose an image file; take the page, the best photo, all views of its explanation: STEM-*.png."""
    wait(driver).until(lambda d: d.find_element(By.ID, "start").is_displayed())
    picture(driver, stem.with_name(f"{stem.name}-start.png"))
    if isinstance(sketch, Path):
        driver.find_element(By.ID, "file").send_keys(str(sketch.resolve()))
    else:
        draw(driver, screen, strokes(sketch))
    wait_for_photos(driver)
    picture(driver, stem.with_name(f"{stem.name}.png"))
    driver.find_element(By.CSS_SELECTOR, "#results .photo").click()
    wait(driver).until(lambda d: not d.find_elements(By.CSS_SELECTOR, "dialog.loading"))
    picture(driver, stem.with_name(f"{stem.name}-photo.png"))
    driver.find_element(By.ID, "viewer-close").click()
    driver.find_element(By.ID, "why-open").click()
    wait(driver).until(lambda d: d.find_element(By.ID, "why-body").is_displayed())
    for view in VIEWS:
        label = driver.find_element(By.XPATH, f"//input[@name='why-view'][@value='{view}']/..")
        # A network with one vector for each picture has no views of patches.
        if not label.is_displayed():
            continue
        label.click()
        wait_for_small_pictures(driver)
        picture(driver, stem.with_name(f"{stem.name}-why-{view}.png"))
    driver.find_element(By.ID, "why-close").click()


def take_searches(driver: Browser, screen: Screen, word: str, stem: Path) -> None:
    """Take kinds, one of them open, then photos like the best one, then those of a word: STEM-*.png."""
    driver.execute_script("document.querySelector('#views [value=kinds]').click()")
    wait(driver).until(lambda d: " group" in d.find_element(By.ID, "status").text)
    take_results(driver, screen, stem.with_name(f"{stem.name}-kinds.png"))
    driver.execute_script("document.querySelector('#results .toggle')?.click()")
    take_results(driver, screen, stem.with_name(f"{stem.name}-kind.png"))
    driver.execute_script("document.querySelector('#results .small.like').click()")
    wait(driver).until(lambda d: "#like=" in d.current_url)
    take_results(driver, screen, stem.with_name(f"{stem.name}-likes.png"))
    field = driver.find_element(By.ID, "word")
    # A network without a vocabulary takes no words.
    if field.is_displayed():
        field.send_keys(word, Keys.ENTER)
        wait(driver).until(lambda d: "text=" in d.current_url)
        take_results(driver, screen, stem.with_name(f"{stem.name}-words.png"))


def take_results(driver: Browser, screen: Screen, file: Path) -> None:
    """Take the photos found: on a phone they are below the paper."""
    wait_for_photos(driver)
    if screen.phone:
        driver.execute_script("document.getElementById('found').scrollIntoView()")
    picture(driver, file)


def wait_for_small_pictures(driver: Browser) -> None:
    """Wait until the look-alikes of an explanation are shown, where they are asked for."""
    wait(driver).until(
        lambda d: d.execute_script(
            "return [...document.querySelectorAll('#why .nearest img')]"
            ".every((one) => !one.checkVisibility() || one.naturalWidth)"
        )
    )


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    made = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__)
    made.add_argument("out", type=Path, metavar="OUT_DIR", help="folder for the PNG files")
    made.add_argument("url", metavar="URL", help="where the server is, such as http://127.0.0.1:8000")
    made.add_argument("--shape", choices=SHAPES, default="house", help="what is drawn (house)")
    made.add_argument("--sketch", type=Path, metavar="FILE", help="an image file, instead of a shape")
    made.add_argument("--word", default="house", help="a word that is searched with at the end (house)")
    usual = ["desktop", "phone"]
    made.add_argument("--screens", nargs="+", choices=SCREENS, default=usual, help="light and dark (desktop phone)")
    return made


def main() -> int:
    """Take the pictures. Returns the exit code."""
    asked = parser().parse_args()
    if reason := missing():
        print(f"screenshots: {reason}", file=sys.stderr)
        return 2
    asked.out.mkdir(parents=True, exist_ok=True)
    for screen in map(SCREENS.__getitem__, asked.screens):
        for dark in (False, True):
            with browser(screen, dark=dark) as driver:
                driver.get(asked.url)
                stem = asked.out / (f"{screen.name}-dark" if dark else screen.name)
                take(driver, screen, asked.sketch or asked.shape, stem)
                take_searches(driver, screen, asked.word, stem)
    return 0


if __name__ == "__main__":
    sys.exit(main())
