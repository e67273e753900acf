"""How long the page takes from the end of a stroke to the photos, in a real browser; `make bench`.

Strokes are drawn on the page of the demo, each one when the photos of the stroke before it are shown. Every drawing is
drawn twice, once for a page of photos and once for one of groups. The browser's own
clock says when the pen was lifted, when the search was sent and answered, and when all visible photos were shown.
Browser and server share this machine, so all times are those of both.
"""

import itertools
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel

from tests.benchmarks.command import Command, by_server, demo
from tests.benchmarks.results import Cell, Row
from tests.pictures import SHAPES, strokes
from tests.requirements import missing_browser

# Imported only where a browser is used: without selenium, `main` says why nothing is measured.
if TYPE_CHECKING:
    from tests.browser import Browser

View: TypeAlias = Literal["photos", "groups"]
# Drawings, each of one stroke or two.
DRAWINGS, QUICK_DRAWINGS = 17, 1
VIEWS: tuple[View, ...] = ("photos", "groups")


class Lift(BaseModel):
    """The times of a stroke in milliseconds: from its end until the search is sent, to its answer, to the photos."""

    view: View
    pause_ms: float
    request_ms: float
    show_ms: float

    @property
    def total_ms(self) -> float:
        return self.pause_ms + self.request_ms + self.show_ms


def rows(lifts: Sequence[Lift]) -> list[Row]:
    """A row for each thing that is waited for, with the median and the 95th percentile in each view."""
    waits = {
        "until the search is sent": "pause_ms",
        "until it is answered": "request_ms",
        "until the photos are shown": "show_ms",
        "from the end of the stroke to its photos": "total_ms",
    }
    out: list[Row] = []
    for said, name in waits.items():
        row: dict[str, Cell] = {f"{len(lifts)} strokes": said}
        for view in VIEWS:
            values = [getattr(lift, name) for lift in lifts if lift.view == view]
            row[f"{view}: median (ms)"] = float(np.median(values))
            row[f"{view}: 95% within (ms)"] = float(np.percentile(values, 95))
        out.append(row)
    return out


def measure(url: str, drawings: int) -> list[Lift]:
    """Measures the strokes of so many drawings, in each view, after one that is not counted: the first is slow."""
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


def _measured(count: int, driver: "Browser") -> bool:
    measured: int = driver.execute_script("return lifts.length")
    return measured == count


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write OUTPUT/drawing.json; where no browser can be started, say why and leave it."""
    command = Command("pen_up", __doc__, photos=True)
    options = command.begin(arguments)
    if reason := missing_browser():
        print(f"pen-up to photos: not measured: {reason}")
        return 0
    with demo(options) as (url, _):
        lifts = measure(url, QUICK_DRAWINGS if options.quick else DRAWINGS)
        command.save(command.result("Drawing", by_server(url), rows=rows(lifts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
