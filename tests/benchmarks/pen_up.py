"""How long the page takes from the end of a stroke to the photos, in a real browser; `make bench`.

Strokes are drawn on the page of the demo, each one when the photos of the stroke before it are shown. Every drawing is
drawn twice, once for a page of photos and once for one of kinds. The browser's own
clock says when the pen was lifted, when the search was sent and answered, and when all visible photos were shown.
Browser and server share this machine, so all times are those of both.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel

from tests.benchmarks.circumstances import BenchmarkResult, circumstances_at
from tests.benchmarks.command import Command
from tests.benchmarks.served_demo import demo
from tests.pictures import SHAPES, strokes

# Imported only where a browser is used: without selenium, `main` says why nothing is measured.
if TYPE_CHECKING:
    from tests.browser import Browser

View: TypeAlias = Literal["photos", "kinds"]
# Drawings, each of one stroke or two.
DRAWINGS, QUICK_DRAWINGS = 17, 1
VIEWS: tuple[View, ...] = ("photos", "kinds")
# What is wanted from the end of a stroke to its photos.
TARGET_MS = 500


class Lift(BaseModel):
    """One stroke: milliseconds from its end until the search is sent, then to its answer, then to the photos.

    Attributes:
        view: what the page was to show.
    """

    view: View
    pause_ms: float
    request_ms: float
    show_ms: float

    @property
    def total_ms(self) -> float:
        """From the end of the stroke to the photos."""
        return self.pause_ms + self.request_ms + self.show_ms


class Result(BenchmarkResult):
    """One run."""

    lifts: list[Lift]

    def parts(self, view: View) -> dict[str, list[float]]:
        """Milliseconds of all strokes of a view, by what is waited for; the last entry is the sum of the others."""
        lifts = [lift for lift in self.lifts if lift.view == view]
        return {
            "pause": [lift.pause_ms for lift in lifts],
            "search": [lift.request_ms for lift in lifts],
            "show": [lift.show_ms for lift in lifts],
            "pen-up to photos": [lift.total_ms for lift in lifts],
        }


def measure(url: str, drawings: int) -> list[Lift]:
    """Measure the strokes of so many drawings, in each view.

    A stroke before them is not counted, because the first search is the slowest.
    """
    from selenium.webdriver.common.by import By

    from tests.browser import DESKTOP, browser, draw, run, wait, wait_for_photos

    with browser(DESKTOP) as driver:
        driver.get(url)
        wait(driver).until(lambda d: d.find_element(By.ID, "start").is_displayed())
        draw(driver, DESKTOP, strokes(SHAPES[0]))
        wait_for_photos(driver)
        run(driver, "watch_lifts")
        numbers = itertools.count(1)
        for shape in itertools.islice(itertools.cycle(SHAPES), drawings):
            for view in VIEWS:
                driver.find_element(By.ID, "clear").click()
                run(driver, "choose_view", view)
                for line in strokes(shape):
                    draw(driver, DESKTOP, [line])
                    wait(driver).until(partial(_measured, next(numbers)))
        return [Lift.model_validate(lift) for lift in driver.execute_script("return lifts")]


def _measured(count: int, driver: Browser) -> bool:
    measured: int = driver.execute_script("return lifts.length")
    return measured == count


def table(result: Result) -> str:
    """The result as a table for the terminal."""
    lines = [f"{len(result.lifts)} strokes, {result.circumstances.machine}"]
    for view in VIEWS:
        lines.append(f"{view:<18}{'median ms':>10}{'p95 ms':>9}")
        lines += [
            f"{name:<18}{np.median(values):>10.0f}{np.percentile(values, 95):>9.0f}"
            for name, values in result.parts(view).items()
        ]
    return "\n".join([*lines, f"wanted: {TARGET_MS} ms"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/pen_up.json; where no browser can be started, say why and leave it."""
    command = Command("pen_up", __doc__, device=False)
    command.add_argument("--photos", type=Path, help="photos to search instead of the sample gallery")
    options, call = command.begin(arguments)
    if reason := _missing():
        print(f"pen-up to photos: not measured: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as name, demo(Path(name), options.photos, options.weights) as url:
        lifts = measure(url, QUICK_DRAWINGS if options.quick else DRAWINGS)
        result = Result(circumstances=circumstances_at(url, call), lifts=lifts)
    document = options.output / "pen_up.json"
    result.save(document)
    print(f"{table(result)}\n{document}")
    return 0


def _missing() -> str | None:
    if find_spec("selenium") is None:
        return "selenium is not installed"
    from tests.browser import missing

    return missing()


if __name__ == "__main__":
    sys.exit(main())
