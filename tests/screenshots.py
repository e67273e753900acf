"""Draws the pictures of the README and the docs: `make pictures`, or `python -m tests.screenshots OUT_DIR`.

They show the page of this checkout in a browser, over the sample gallery with the photos of scikit-learn and
scikit-image. What is drawn are drawings that the start page offers, by pointer.
"""

import argparse
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from selenium.webdriver.common.by import By

from sketch_search import model
from sketch_search.indexer import BuildRequest, build
from sketch_search.indexer.samples import write_samples
from sketch_search.service.settings import Settings
from tests.browser import DESKTOP, Browser, Line, Screen, browser, draw, picture, run, settle, wait, wait_for_photos
from tests.requirements import missing_browser
from tests.service.served import served

#: Low, so that two of them stand below each other, and two rows of photos are seen.
FRAME = Screen("frame", 1280, 560)
GAP = 24
# Ink of ``draw`` goes from -1 to 1, which are so many sides of the sheet.
_SIDE = 0.84


def drawing(driver: Browser, name: str) -> list[Line]:
    lines: list[list[list[float]]] = run(driver, "example_strokes", name)
    return [[((x - 0.5) * 2 / _SIDE, (y - 0.5) * 2 / _SIDE) for x, y in line] for line in lines]


def find(driver: Browser, screen: Screen, name: str, view: str) -> None:
    """Draw it, and wait for its photos. Raises AssertionError where it is not guessed and found: no picture of that."""
    driver.execute_script(
        "sessionStorage.clear(); localStorage.clear(); localStorage['sketch-search-view'] = arguments[0]", view
    )
    driver.get(driver.current_url.partition("#")[0])
    draw(driver, screen, drawing(driver, name))
    wait_for_photos(driver)
    label = driver.find_element(By.CSS_SELECTOR, "#things input")
    guess = f"{label.get_attribute('value') or label.get_attribute('placeholder')}"
    best = driver.find_element(By.CSS_SELECTOR, "#results .name").text
    assert guess.startswith(name.lower()), f"{name} was guessed as {guess}"
    assert best.startswith(name.lower()), f"{name} found {best}"


def like_best(driver: Browser) -> None:
    driver.execute_script("document.querySelector('#results .small.like').click()")
    wait(driver).until(lambda d: "#like=" in d.current_url)
    wait_for_photos(driver)


def placed(lines: list[Line], x: float, y: float, scale: float) -> list[Line]:
    """The lines of a drawing, smaller, around a point of the paper."""
    return [[(x + scale * a, y + scale * b) for a, b in line] for line in lines]


def draw_scene(driver: Browser, screen: Screen) -> None:
    """Draw an umbrella in blue on the left, and a cat on the right, and wait for their photos."""
    driver.execute_script("sessionStorage.clear(); localStorage.clear(); localStorage['sketch-search-view'] = 'photos'")
    driver.get(driver.current_url.partition("#")[0])
    driver.find_element(By.CSS_SELECTOR, "#inks [title=Blue]").click()
    draw(driver, screen, placed(drawing(driver, "Umbrella"), -0.5, 0.1, 0.4))
    driver.find_element(By.CSS_SELECTOR, "#inks [title=Black]").click()
    draw(driver, screen, placed(drawing(driver, "Cat"), 0.55, 0.1, 0.4))
    wait_for_photos(driver)
    said = driver.find_element(By.ID, "parts-things").text
    assert said == "blue umbrella, cat", said
    best = driver.find_element(By.CSS_SELECTOR, "#results .name").text
    assert best.startswith("umbrella and cat"), best


def two_frames(driver: Browser, file: Path) -> None:
    """A scene of two things in colour, and one thing with a click on the + of the best photo, below each other."""
    frames = []

    def frame() -> None:
        settle(driver)
        frames.append(Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB"))

    draw_scene(driver, FRAME)
    frame()
    find(driver, FRAME, "Bicycle", "photos")
    like_best(driver)
    frame()
    width, height = frames[0].size
    whole = Image.new("RGB", (width, len(frames) * (height + GAP) - GAP), "white")
    for place, one in enumerate(frames):
        whole.paste(one, (0, place * (height + GAP)))
    whole.save(file)


def scene(driver: Browser, file: Path) -> None:
    draw_scene(driver, DESKTOP)
    picture(driver, file)


def groups(driver: Browser, file: Path) -> None:
    find(driver, DESKTOP, "Umbrella", "groups")
    picture(driver, file)


def click(driver: Browser, file: Path) -> None:
    find(driver, DESKTOP, "Umbrella", "groups")
    like_best(driver)
    driver.execute_script("document.querySelector('#results .toggle')?.click()")
    wait_for_photos(driver)
    picture(driver, file)


def word(driver: Browser, file: Path) -> None:
    find(driver, DESKTOP, "Umbrella", "photos")
    driver.find_element(By.CSS_SELECTOR, "#things input").click()
    driver.find_element(By.CSS_SELECTOR, ".offers button").click()
    wait(driver).until(lambda d: d.find_element(By.ID, "parts-undo").is_displayed())
    wait_for_photos(driver)
    picture(driver, file)


def why(driver: Browser, file: Path) -> None:
    find(driver, DESKTOP, "Sailboat", "photos")
    driver.find_element(By.ID, "why-open").click()
    wait(driver).until(lambda d: d.find_elements(By.CSS_SELECTOR, "#why-joins .line"))
    wait(driver).until(
        lambda d: d.execute_script("return [...document.querySelectorAll('#why-plain img')].every((i) => i.complete)")
    )
    picture(driver, file)


def make_small(file: Path) -> None:
    """Saves a picture in 256 colours: half of them as often as they are there, and half wherever they are."""
    with Image.open(file) as opened:
        shot = opened.convert("RGB")
    ways = (Image.Quantize.MEDIANCUT, Image.Quantize.MAXCOVERAGE)
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for way in ways for value in (shot.quantize(128, way).getpalette() or [])[: 3 * 128]])
    shot.quantize(palette=palette).save(file, optimize=True)


#: The pictures of each screen, in the order in which they are taken.
Take = Callable[[Browser, Path], None]
_TUTORIAL: tuple[Take, ...] = (groups, scene, click, word)
PICTURES: dict[Screen, dict[str, Take]] = {
    FRAME: {"page.png": two_frames},
    DESKTOP: {f"tutorial-{take.__name__}.png": take for take in _TUTORIAL} | {"why.png": why},
}


def main() -> int:
    made = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__)
    made.add_argument("out", type=Path, metavar="OUT_DIR", help="folder for the PNG files")
    out: Path = made.parse_args().out
    if reason := missing_browser():
        print(f"pictures: {reason}", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sketch-search-pictures-") as folder:
        write_samples(Path(folder))
        photos, index = Path(folder) / "photos", Path(folder) / "index"
        print(f"The gallery: {build(index, BuildRequest([photos]), model.load()).photos} photos.")
        with served(Settings(index=index, port=0)) as server:
            for screen, pictures in PICTURES.items():
                with browser(screen, still=True) as driver:
                    driver.get(server.url)
                    for name, take in pictures.items():
                        take(driver, out / name)
                        make_small(out / name)
                        print(out / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
