"""Pictures of the page for the README: `python -m tests.screenshots OUT_DIR URL`, of a server that is running."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from selenium.webdriver.common.by import By

from tests.browser import DESKTOP, PHONE, browser, draw, missing, picture, wait, wait_for_photos
from tests.pictures import SHAPES, strokes


def main() -> int:
    """Take them; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="folder for the PNG files")
    parser.add_argument("url", metavar="URL", help="where the server is, such as http://127.0.0.1:8000")
    parser.add_argument("--shape", choices=SHAPES, default="house", help="what is drawn (house)")
    asked = parser.parse_args()
    if reason := missing():
        print(f"screenshots: {reason}", file=sys.stderr)
        return 2
    asked.out.mkdir(parents=True, exist_ok=True)
    for screen in (DESKTOP, PHONE):
        for dark in (False, True):
            with browser(screen, dark=dark) as driver:
                driver.get(asked.url)
                draw(driver, screen, strokes(asked.shape))
                wait_for_photos(driver)
                name = f"{screen.name}-dark" if dark else screen.name
                picture(driver, asked.out / f"{name}.png")
                driver.find_element(By.CSS_SELECTOR, "#results button").click()
                wait(driver).until(lambda d: not d.find_elements(By.CSS_SELECTOR, "dialog.loading"))
                picture(driver, asked.out / f"{name}-photo.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
