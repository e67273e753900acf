"""The page in a real browser: why photos were found, and who can use it all."""

from __future__ import annotations

from importlib import resources

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import visibility_of_element_located
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from service.http.app import create_app
from service.settings import Settings
from tests import browser
from tests.browser import DESKTOP, PHONE, Browser, Screen, draw, wait, wait_for_photos
from tests.pictures import strokes
from tests.requirements import needs_browser
from tests.service.looking import (
    check_quiet,
    module,
    text,
)
from tests.service.served import Served, served

pytestmark = needs_browser


# Of an element's width, as far as the boxes around it let it be seen; None where it is not shown at all.
VISIBLE_SHARE = """
const [element] = arguments;
const { left, right, width } = element.getBoundingClientRect();
let [from, to] = [0, innerWidth];
for (let box = element.parentElement; box; box = box.parentElement) {
  const around = box.getBoundingClientRect();
  if (getComputedStyle(box).overflowX !== "visible") {
    [from, to] = [Math.max(from, around.left), Math.min(to, around.right)];
  }
}
return width ? Math.max(0, Math.min(right, to + 0.5) - Math.max(left, from - 0.5)) / width : null;
"""


def open_why(driver: Browser, server: Served, screen: Screen = DESKTOP) -> None:
    driver.get(server.url)
    draw(driver, screen, strokes("house"))
    wait_for_photos(driver)
    driver.find_element(By.ID, "why-open").click()
    wait(driver).until(lambda d: d.find_element(By.ID, "why-body").is_displayed())


def overlays(driver: Browser) -> list[str]:
    """What is laid over the sketch and over each photo."""
    found: list[str] = driver.execute_script(
        "return [...document.querySelectorAll('#why .layers canvas')].map((canvas) => canvas.toDataURL())"
    )
    return found


def test_pointing_at_a_part_lights_it_up_in_the_photos(desk: Browser, server: Served) -> None:
    open_why(desk, server)
    assert len(desk.find_elements(By.CSS_SELECTOR, "#why-photos li")) == 6
    chips = desk.find_elements(By.CSS_SELECTOR, "#why-parts button")
    pinned = [chip for chip in chips if chip.get_attribute("aria-pressed") == "true"]
    assert [chip.get_attribute("data-letter") for chip in pinned] == ["A", "B", "C"]
    before = overlays(desk)
    for chip in pinned:
        chip.click()
    # Away from the chip, which is pointed at as long as the pointer is on it.
    ActionChains(desk).move_to_element(desk.find_element(By.ID, "why-title")).perform()
    desk.execute_script("document.activeElement.blur()")
    bare = overlays(desk)
    assert all(one != other for one, other in zip(before, bare, strict=True))
    house = desk.find_element(By.ID, "why-sketch")
    # The ground of the house, where the drawing ends.
    ActionChains(desk).move_to_element_with_offset(house, 0, round(0.45 * house.rect["height"])).perform()
    hovered = overlays(desk)
    assert hovered[0] != bare[0]
    ActionChains(desk).click().perform()
    assert text(desk, "why-said").endswith("is kept as A.")
    assert [chip.get_attribute("data-letter") for chip in chips].count("A") == 1
    check_quiet(desk, server)


def test_every_view_of_an_explanation_shows_something_else(desk: Browser, server: Served) -> None:
    open_why(desk, server)
    seen = {tuple(overlays(desk))}
    for view in ("look", "kept", "pairs"):
        desk.find_element(By.XPATH, f"//input[@name='why-view'][@value='{view}']/..").click()
        seen.add(tuple(overlays(desk)))
    assert len(seen) == 4
    desk.find_element(By.XPATH, "//input[@name='why-view'][@value='look']/..").click()
    before = overlays(desk)
    desk.find_element(By.ID, "why-share").send_keys(Keys.END)
    assert text(desk, "why-share-value") == "95 %"
    assert overlays(desk) != before
    desk.find_element(By.XPATH, "//input[@name='why-view'][@value='rebuilt']/..").click()
    wait(desk).until(lambda d: d.find_elements(By.CSS_SELECTOR, "#why-rebuilt img"))
    assert "From all photos there are" in text(desk, "why-rebuilt")
    check_quiet(desk, server)


def test_one_photo_is_explained_from_its_own_dialog(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    draw(desk, DESKTOP, strokes("star"))
    wait_for_photos(desk)
    desk.find_element(By.CSS_SELECTOR, "#results button").click()
    name = text(desk, "viewer-title")
    desk.find_element(By.ID, "viewer-why").click()
    wait(desk).until(lambda d: d.find_element(By.ID, "why-body").is_displayed())
    assert text(desk, "why-title") == f"Why {name}?"
    assert len(desk.find_elements(By.CSS_SELECTOR, "#why-photos li")) == 1
    desk.find_element(By.ID, "why-close").click()
    assert desk.find_element(By.ID, "viewer").is_displayed()
    check_quiet(desk, server)


def test_without_explanations_the_page_stops_offering_them(desk: Browser, settings: Settings) -> None:
    app = create_app(settings)

    @app.middleware("http")
    async def without(request: Request, ask: RequestResponseEndpoint) -> Response:
        return Response(status_code=405) if request.url.path == "/explain" else await ask(request)

    with served(settings, app) as server:
        desk.get(server.url)
        draw(desk, DESKTOP, strokes("house"))
        wait_for_photos(desk)
        desk.find_element(By.ID, "why-open").click()
        wait(desk).until(lambda d: d.find_element(By.ID, "why-again").is_displayed())
        desk.find_element(By.ID, "why-close").click()
        assert not desk.find_element(By.ID, "why-open").is_displayed()


def test_the_line_runs_around_the_fewest_cells_with_the_share_wanted(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    values = [0.1, 0.5, 0.2, 0.0, 0.2]
    for share, cells in [(0.5, [1]), (0.6, [1, 2]), (0.9, [1, 2, 4]), (1.0, [0, 1, 2, 4])]:
        found = module(desk, "why/views.js", "Array.from(heaviest(data[0], data[1])).sort()", [values, share])
        assert found == cells


def test_the_best_matches_of_a_part_are_those_of_its_tokens(desk: Browser, server: Served) -> None:
    photo = {"sketch_cells": [0, 3, 5], "photo_cells": [2, 7], "correspondence": [[0.1, 0.9], [0.8, 0.2], [0.3, 0.6]]}
    desk.get(server.url)
    found = module(desk, "why/views.js", "[...bestMatches(data, new Set([0, 5, 9]))]", photo)
    assert found == [[7, 0.9]]


def test_a_stroke_lights_the_cells_that_it_crosses_where_the_network_saw_it(desk: Browser, server: Served) -> None:
    """Two lines in a corner of the sheet are, cropped to the ink, the upper and the left edge of the picture."""
    desk.get(server.url)
    cells = desk.execute_async_script(
        """
        const [done] = arguments;
        Promise.all([import("/page/why/regions.js"), import("/page/drawing/ink.js")]).then(async ([{ partsOf }, { paint }]) => {
          const line = (from, to) => ({ kind: "line", colour: "#000000", width: 0.01, points: [from, to] });
          const lines = (from, to) => [
            line({ x: from, y: from }, { x: to, y: from }),
            line({ x: from, y: from }, { x: from, y: to }),
            ...[1, 2].map(() => line({ x: from, y: from }, { x: from, y: from + 0.001 })),
          ];
          const picture = async (marks) => {
            const sheet = Object.assign(document.createElement("canvas"), { width: 256, height: 256 });
            paint(sheet.getContext("2d"), 256, marks);
            return new Promise((ready) => sheet.toBlob(ready));
          };
          const image = new Image();
          image.src = URL.createObjectURL(await picture(lines(0.05, 0.95)));
          await image.decode();
          const marks = lines(0.5, 0.8);
          const parts = await partsOf({ blob: await picture(marks), marks, paper: "#ffffff" }, image, 4);
          done(parts.slice(0, 2).map(({ cells }) => [...cells]));
        });
        """
    )
    assert cells == [[0, 1, 2, 3], [0, 4, 8, 12]]


def test_of_an_image_only_what_is_drawn_is_a_part(desk: Browser, server: Served) -> None:
    """A stroke from the middle to the right and a dot on bare paper, as an image: three of its ninths."""
    desk.get(server.url)
    found = desk.execute_async_script(
        """
        const [done] = arguments;
        import("/page/why/regions.js").then(async ({ partsOf, paintPart }) => {
          const sheet = Object.assign(document.createElement("canvas"), { width: 60, height: 60 });
          const context = sheet.getContext("2d");
          context.fillStyle = "#ffffff";
          context.fillRect(0, 0, 60, 60);
          context.fillStyle = "#000000";
          context.fillRect(25, 28, 30, 4);
          context.fillRect(3, 3, 4, 4);
          const image = new Image();
          image.src = sheet.toDataURL();
          await image.decode();
          const parts = await partsOf({ blob: null, marks: [{ kind: "image" }], paper: "#ffffff" }, image, 6);
          const faces = parts.map((part) => {
            const face = Object.assign(document.createElement("canvas"), { width: 60, height: 60 });
            paintPart(face, part);
            return [...face.getContext("2d").getImageData(0, 0, 60, 60).data].some((value) => value);
          });
          done(parts.map(({ name, cells }, i) => [name, [...cells], faces[i]]));
        });
        """
    )
    assert found == [
        ["The top left", [0], True],
        ["The middle", [14, 15, 20, 21], True],
        ["The right", [16, 17, 22, 23], True],
    ]


def test_on_a_phone_every_view_of_an_explanation_stays_on_the_screen(server: Served) -> None:
    with browser.browser(PHONE) as driver:
        open_why(driver, server, PHONE)
        for radio in driver.find_elements(By.NAME, "why-view"):
            radio.find_element(By.XPATH, "..").click()
            assert radio.is_selected()
            controls = driver.find_elements(By.CSS_SELECTOR, "#why-cross label")
            chosen = radio.find_element(By.XPATH, "..")
            for shown in [driver.find_element(By.ID, "why-lead"), chosen, *controls]:
                # Not its rect, which is whole where a box around it cuts it off.
                assert driver.execute_script(VISIBLE_SHARE, shown) in (None, 1)


@pytest.mark.parametrize(("screen", "dark"), [(DESKTOP, False), (PHONE, True)], ids=["desktop", "dark-phone"])
def test_axe_finds_nothing_to_complain_about(server: Served, screen: Screen, dark: bool) -> None:
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    script = resources.files(axe).joinpath("axe.min.js").read_text(encoding="utf-8")

    def complaints(driver: Browser) -> list[str]:
        driver.execute_script(script)
        found = driver.execute_async_script(
            "const [done] = arguments; axe.run().then(({ violations }) => done(violations.flatMap(({ id, nodes }) =>"
            " nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary}`))))"
        )
        return list(found)

    with browser.browser(screen, dark=dark) as driver:
        driver.get(server.url)
        wait(driver).until(lambda d: text(d, "about-open") == "23 photos")
        assert complaints(driver) == []
        draw(driver, screen, strokes("house"))
        wait_for_photos(driver)
        browser.settle(driver)
        assert complaints(driver) == []
        for opener, shown in [("about-open", "about-title"), ("help-open", "help-title"), ("why-open", "why-views")]:
            driver.find_element(By.ID, opener).click()
            wait(driver).until(visibility_of_element_located((By.ID, shown)))
            assert complaints(driver) == []
            driver.find_element(By.ID, f"{opener.split('-')[0]}-close").click()
        driver.find_element(By.CSS_SELECTOR, "#results button").click()
        wait(driver).until(lambda d: not d.find_elements(By.CSS_SELECTOR, "dialog.loading"))
        browser.settle(driver)
        assert complaints(driver) == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= screen.width
