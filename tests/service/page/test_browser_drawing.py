import io
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.interaction import POINTER_MOUSE, POINTER_PEN
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from sketch_search.indexer import BuildRequest, build
from sketch_search.model import Matcher
from sketch_search.service.settings import Settings
from tests import browser
from tests.browser import DESKTOP, PHONE, Browser, before_pages, draw, stroke, wait, wait_for_photos
from tests.pictures import encoded, strokes
from tests.programs import PATIENCE, wait_until
from tests.requirements import needs_browser
from tests.service import looking
from tests.service.served import Served
from tests.service.small_gallery import draw_sketch, save_copy

pytestmark = needs_browser

RED, WHITE = [0xC8, 0x32, 0x2B], [255, 255, 255]
TABLET = replace(PHONE, name="tablet", width=1024, height=768)


def test_strokes_are_undone_and_redone(desk: Browser, server: Served) -> None:
    looking.find(desk, server, "cross")
    drawn = looking.ink(desk)
    for _ in strokes("cross"):
        ActionChains(desk).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    looking.wait_for_notice(desk, "What are you looking for?")
    assert looking.ink(desk) == 0
    assert not desk.find_elements(By.CSS_SELECTOR, "#results li")
    for _ in strokes("cross"):
        ActionChains(desk).key_down(Keys.CONTROL).key_down(Keys.SHIFT).send_keys("z").perform()
        ActionChains(desk).key_up(Keys.SHIFT).key_up(Keys.CONTROL).perform()
    wait_for_photos(desk)
    desk.find_element(By.ID, "clear").click()
    assert looking.ink(desk) == 0
    desk.find_element(By.ID, "undo").click()
    assert looking.ink(desk) == drawn > 0


def test_a_search_is_kept_under_a_name_and_opened_again_with_all_its_parts(desk: Browser, server: Served) -> None:
    desk.get(f"{server.url}/#unlike=4")
    draw(desk, DESKTOP, strokes("cross"))
    wait_for_photos(desk)
    drawn, address = looking.paper(desk), desk.current_url
    desk.find_element(By.ID, "save").click()
    desk.find_element(By.ID, "keep-name").send_keys("my cross", Keys.ENTER)
    wait(desk).until(lambda d: not d.find_element(By.ID, "keep").is_displayed())
    desk.find_element(By.ID, "clear").click()
    looking.wait_for_notice(desk, "What are you looking for?")
    desk.refresh()
    wait(desk).until(lambda d: looking.text(d, "kept-list") == "my cross")
    desk.find_element(By.CSS_SELECTOR, "#kept-list button").click()
    wait_for_photos(desk)
    assert desk.current_url == address
    assert (looking.paper(desk) == drawn).all()
    desk.find_element(By.ID, "clear").click()
    looking.wait_for_notice(desk, "What are you looking for?")
    desk.find_element(By.CSS_SELECTOR, "#kept-list .plain").click()
    assert looking.text(desk, "kept-list") == "my cross\nSure?"
    desk.find_element(By.CSS_SELECTOR, "#kept-list .plain").click()
    wait(desk).until(lambda d: not d.find_element(By.ID, "kept-list").is_displayed())


def test_a_pen_pressed_harder_draws_a_broader_line_and_an_eraser_takes_it_away(desk: Browser, server: Served) -> None:
    drawn = []
    for pressure in (0.1, 0.5, 1.0):
        desk.get(server.url)
        stroke(desk, POINTER_PEN, [(0, -0.7), (0, 0.7)], pressure)
        drawn.append(looking.ink(desk))
    assert 0 < drawn[0] < drawn[1] < drawn[2]
    desk.find_element(By.CSS_SELECTOR, "[value=eraser]").send_keys(Keys.SPACE)
    draw(desk, DESKTOP, [[(0, 0), (0, 0.9)]])
    assert 0.3 * drawn[2] < looking.ink(desk) < 0.7 * drawn[2]


def touch(driver: Browser, kind: str, *place: float) -> None:
    """A finger, or a palm: touchStart, touchMove, touchEnd or touchCancel, at a place in sides of the paper."""
    points = [dict(zip(("x", "y"), at(driver, *place), strict=True), radiusX=30, radiusY=30)] if place else []
    driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def point(driver: Browser, kind: str, x: float, y: float, *, buttons: int, pointer: str = "pen") -> None:
    """A pen or a mouse: mousePressed, mouseMoved or mouseReleased."""
    at_x, at_y = at(driver, x, y)
    event = {"type": kind, "x": at_x, "y": at_y, "buttons": buttons, "pointerType": pointer, "force": 0.5}
    button = {"button": "left" if kind != "mouseMoved" else "none", "clickCount": int(kind != "mouseMoved")}
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", event | button)


def at(driver: Browser, x: float, y: float) -> tuple[float, float]:
    box = driver.execute_script("return document.getElementById('paper').getBoundingClientRect().toJSON()")
    return box["left"] + x * box["width"], box["top"] + y * box["height"]


def pen_line(driver: Browser, *places: tuple[float, float], pointer: str = "pen", release: bool = True) -> None:
    for i, (x, y) in enumerate(places):
        point(driver, "mouseMoved" if i else "mousePressed", x, y, buttons=1, pointer=pointer)
    if release:
        point(driver, "mouseReleased", *places[-1], buttons=0, pointer=pointer)


def marks(driver: Browser) -> list[int]:
    script = f"return (JSON.parse({looking.STORED} ?? null)?.marks ?? []).map(({{ points }}) => points.length / 3)"
    return driver.execute_script(script)


def test_the_pen_wins_against_the_palm_and_then_fingers_scroll(opened: Browser, server: Served) -> None:
    with looking.on_screen(opened, TABLET) as driver:
        driver.get(server.url)
        touch(driver, "touchStart", 0.8, 0.8)
        touch(driver, "touchMove", 0.7, 0.75)
        touch(driver, "touchCancel")
        assert (marks(driver), looking.ink(driver)) == ([], 0)
        touch(driver, "touchStart", 0.8, 0.85)
        touch(driver, "touchMove", 0.78, 0.83)
        pen_line(driver, (0.2, 0.2), (0.4, 0.4), (0.6, 0.6))
        touch(driver, "touchMove", 0.75, 0.8)
        touch(driver, "touchEnd")
        assert marks(driver) == [3]
        # Between two strokes a touch scrolls, however far it moves.
        driver.execute_script("document.body.style.paddingBottom = '100vh'")
        touch(driver, "touchStart", 0.5, 0.9)
        touch(driver, "touchMove", 0.5, 0.6)
        wait(driver).until(lambda d: d.execute_script("return scrollY") > 50)
        touch(driver, "touchEnd")
        driver.execute_script("scrollTo(0, 0)")
        assert marks(driver) == [3]
        driver.find_element(By.CSS_SELECTOR, "#fingers-switch").click()
        touch(driver, "touchStart", 0.2, 0.8)
        touch(driver, "touchMove", 0.4, 0.8)
        touch(driver, "touchEnd")
        assert marks(driver) == [3, 2]
        wait_for_photos(driver)


def test_a_stroke_ends_where_its_release_was_lost(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    pen_line(desk, (0.2, 0.3), (0.4, 0.3), pointer="mouse", release=False)
    # A menu or another window took the release, and the mouse comes back.
    for x in (0.9, 0.6, 0.3):
        point(desk, "mouseMoved", x, 0.8, buttons=0, pointer="mouse")
    assert marks(desk) == [2]
    assert (looking.paper(desk)[-looking.paper(desk).shape[0] // 3 :] == WHITE).all()
    wait_for_photos(desk)


@pytest.mark.parametrize(
    ("pointer", "buttons", "captured"), [("pen", 0, True), ("touch", 0, True), ("mouse", 1, False), ("pen", 0, False)]
)
def test_a_pointer_draws_whose_movements_tell_of_no_button_or_that_cannot_be_captured(
    desk: Browser, server: Served, pointer: str, buttons: int, captured: bool
) -> None:
    desk.get(server.url)
    browser.run(desk, "pen_by_script", pointer, buttons, captured)
    assert marks(desk) == [13]
    wait_for_photos(desk)


def test_the_canvas_follows_the_screen_and_pens_differ_in_contrast_themes(desk: Browser, server: Served) -> None:
    looking.find(desk, server)
    pixels = "const c = document.getElementById('paper'); return c.width / c.clientWidth === arguments[0]"
    for ratio in (1, 2, 1.5):
        browser.emulate(desk, replace(DESKTOP, ratio=ratio))
        wait(desk).until(lambda d, ratio=ratio: d.execute_script(pixels, ratio))  # type: ignore[misc]
        assert looking.ink(desk) > 0
    browser.emulate(desk, DESKTOP)
    features = [{"name": "forced-colors", "value": "active"}]
    desk.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    pens = "return [...document.querySelectorAll('.swatch')].map((pen) => getComputedStyle(pen).backgroundColor)"
    colours = desk.execute_script(pens)
    assert len(set(colours)) == len(colours) >= 8


def test_keys_choose_shapes_on_keyboards_of_all_scripts_and_can_be_turned_off(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    draw(desk, DESKTOP, strokes("cross"))

    def press(key: str, code: str, control: bool = False) -> None:
        event = {"type": "keyDown", "key": key, "code": code, "modifiers": 2 * control}
        desk.execute_cdp_cmd("Input.dispatchKeyEvent", event)
        desk.execute_cdp_cmd("Input.dispatchKeyEvent", event | {"type": "keyUp"})

    for key in ("я", "ζ"):
        before = len(marks(desk))
        press(key, "KeyZ", control=True)
        assert len(marks(desk)) == before - 1
    for key, code, tool in (
        ("у", "KeyE", "eraser"),
        ("з", "KeyP", "pen"),
        ("e", "KeyD", "eraser"),
        ("é", "KeyP", "eraser"),
    ):
        press(key, code)
        assert desk.find_element(By.CSS_SELECTOR, f"[name=tool][value={tool}]").is_selected()
    ActionChains(desk).send_keys("c").perform()
    drawn = []
    for key in ("l", "o", "r"):
        ActionChains(desk).send_keys(key).perform()
        draw(desk, DESKTOP, [[(-0.7, -0.7), (0.7, 0.7)]])
        drawn.append(looking.ink(desk))
        ActionChains(desk).send_keys("c").perform()
    # The diagonal, the ellipse around the middle, and the rectangle around both.
    assert 0 < 1.2 * drawn[0] < drawn[1] < drawn[2]
    ActionChains(desk).send_keys("p?").perform()
    assert "rectangle" in looking.text(desk, "help-list").lower()
    desk.find_element(By.CSS_SELECTOR, "#help .switch").click()
    desk.find_element(By.ID, "help-close").click()
    ActionChains(desk).send_keys("r").perform()
    assert desk.find_element(By.CSS_SELECTOR, "[name=tool][value=pen]").is_selected()


def test_two_fingers_zoom_and_draw_nothing(opened: Browser, server: Served) -> None:
    with looking.on_screen(opened, PHONE) as driver:
        driver.get(server.url)
        draw(driver, PHONE, strokes("cross")[:1])
        drawn = looking.ink(driver)
        middle = {"x": PHONE.width // 2, "y": 200}
        driver.execute_cdp_cmd("Input.synthesizePinchGesture", {**middle, "scaleFactor": 2})
        wait(driver).until(lambda d: d.execute_script("return visualViewport.scale") > 1.5)
        assert looking.ink(driver) == drawn > 0
        wait_for_photos(driver)


def test_a_pen_has_a_colour_and_a_bucket_fills_a_closed_outline(desk: Browser, server: Served) -> None:
    desk.get(server.url)

    def middle() -> list[int]:
        pixels = looking.paper(desk)
        return [int(value) for value in pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]]

    # An outline with a gap as wide as a hand leaves it, and lines within it.
    box = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.48)]
    draw(desk, DESKTOP, [box, [(-0.3, -0.3), (0.3, -0.3)]])
    desk.find_element(By.CSS_SELECTOR, "#inks [title=Red]").click()
    desk.find_element(By.CSS_SELECTOR, "[value=fill]").send_keys(Keys.SPACE)
    draw(desk, DESKTOP, [[(0, 0)]])
    assert middle() == RED
    filled = (looking.paper(desk) == RED).all(axis=2).mean()
    # A square of half the sheet's height, at 0.42 heights to each side of the middle.
    assert 0.87 * 0.42**2 < filled * 4 / 3 < 0.42**2
    draw(desk, DESKTOP, [[(0.9, 0.9)]])
    assert "closed outline" in looking.text(desk, "hint")
    assert (looking.paper(desk) == RED).all(axis=2).mean() == filled
    desk.find_element(By.ID, "undo").click()
    assert middle() == WHITE
    desk.find_element(By.ID, "redo").click()
    wait_for_photos(desk)
    assert looking.text(desk, "hint") == ""
    desk.refresh()
    wait_for_photos(desk)
    assert looking.text(desk, "hint") == "Your last drawing is back. Clear begins a new one."
    desk.find_element(By.ID, "status").click()
    assert looking.text(desk, "hint") == ""
    assert middle() == RED
    desk.find_element(By.CSS_SELECTOR, "[value=pen]").send_keys(Keys.SPACE)
    desk.find_element(By.CSS_SELECTOR, "#inks [title=Blue]").click()
    draw(desk, DESKTOP, [[(-0.2, 0), (0.2, 0)]])
    assert middle() == [0x26, 0x66, 0xB8]
    pick = "const pick = document.querySelector('#inks [type=color]'); pick.value = '#f0a0c0';"
    desk.execute_script(f"{pick} pick.dispatchEvent(new Event('input'))")
    draw(desk, DESKTOP, [[(-0.2, 0), (0.2, 0)]])
    assert middle() == [0xF0, 0xA0, 0xC0]
    assert not desk.find_elements(By.CSS_SELECTOR, "#inks :checked")
    wait_for_photos(desk)


def drawn_box(pixels: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom of the ink, as shares of the sides."""
    rows, columns = np.nonzero(pixels.min(axis=2) < 128)
    height, width = pixels.shape[:2]
    return columns.min() / width, rows.min() / height, columns.max() / width, rows.max() / height


def check_sent(driver: Browser, size: tuple[int, int]) -> None:
    """Wait for a search with a picture of this size, and check that picture and strokes are what is seen."""

    def picture() -> Image.Image:
        return Image.open(io.BytesIO(looking.last_search(driver))).convert("RGB")

    wait(driver).until(lambda _: picture().size == size)
    sent = drawn_box(np.asarray(picture()))
    assert sent == pytest.approx(drawn_box(looking.paper(driver)), abs=0.02)
    strokes = driver.execute_script("return JSON.parse(searches.at(-1).body.get('strokes'))")
    x, y = np.array([point for stroke in strokes for point in stroke["points"]]).T
    assert (x.min(), y.min(), x.max(), y.max()) == pytest.approx(sent, abs=0.03)
    assert strokes[0]["width"] * size[0] == pytest.approx(0.012 * 512, rel=0.3)


def test_the_paper_is_turned_and_what_is_drawn_keeps_its_form(desk: Browser, server: Served) -> None:
    def form() -> tuple[float, float]:
        pixels = looking.paper(desk)
        left, top, right, bottom = drawn_box(pixels)
        shape = pixels.shape[1] / pixels.shape[0]
        return shape, shape * (right - left) / (bottom - top)

    def wait_for_shape(shape: float) -> None:
        wait(desk).until(
            lambda _: looking.paper(desk).shape[1] / looking.paper(desk).shape[0] == pytest.approx(shape, abs=0.01)
        )

    def press(key: str, shape: float) -> None:
        ActionChains(desk).send_keys(key).perform()
        wait_for_shape(shape)

    with before_pages(desk, "record_searches"):
        desk.get(server.url)
        draw(desk, DESKTOP, [[(-1.4, -0.4), (1.4, -0.4), (1.4, 0.4), (-1.4, 0.4), (-1.4, -0.4)]])
        wait_for_photos(desk)
        assert form() == pytest.approx((4 / 3, 3.5), rel=0.05)
        check_sent(desk, (512, 384))
        for key, shape, size in (("t", 3 / 4, (384, 512)), ("t", 1, (512, 512)), ("t", 4 / 3, (512, 384))):
            press(key, shape)
            assert form() == pytest.approx((shape, 3.5), rel=0.05)
            check_sent(desk, size)
        wide = drawn_box(looking.paper(desk))
        assert wide[2] - wide[0] > 0.8
        press("t", 3 / 4)
        desk.find_element(By.ID, "undo").click()
        wait(desk).until(lambda d: drawn_box(looking.paper(d)) == wide)
        desk.find_element(By.ID, "redo").click()
        wait_for_photos(desk)
        desk.refresh()
        wait_for_photos(desk)
        assert form() == pytest.approx((3 / 4, 3.5), rel=0.05)
        check_sent(desk, (384, 512))
        for key, shape in (("t", 1), ("t", 4 / 3), ("t", 3 / 4)):
            press(key, shape)
        for shape in (4 / 3, 1, 3 / 4):
            desk.find_element(By.ID, "undo").click()
            wait_for_shape(shape)
            assert form() == pytest.approx((shape, 3.5), rel=0.05)
        wait_for_photos(desk)
        desk.find_element(By.ID, "clear").click()
        press("t", 1)
        desk.back()
        wait_for_photos(desk)
        assert form() == pytest.approx((3 / 4, 3.5), rel=0.05)
    desk.execute_script("sessionStorage.clear()")
    desk.refresh()
    wait(desk).until(lambda d: "Paper: landscape" in str(d.find_element(By.ID, "turn").get_attribute("title")))


def test_a_thing_or_a_stroke_of_it_is_moved_and_deleted_by_hand(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    draw(desk, DESKTOP, [[(-0.7, -0.5), (0.7, -0.5)], [(-0.7, 0.5), (0.7, 0.5)]])
    wait_for_photos(desk)

    def rows() -> list[bool]:
        """Whether there is ink above, in the middle and below, on a line down the sheet."""
        dark = (looking.paper(desk).mean(axis=2) < 128)[:, 3 * looking.paper(desk).shape[1] // 5]
        return [bool(part.any()) for part in np.array_split(dark, 3)]

    assert rows() == [True, False, True]
    desk.find_element(By.CSS_SELECTOR, "[value=move]").send_keys(Keys.SPACE)
    stroke(desk, POINTER_MOUSE, [(0, 0)])
    stroke(desk, POINTER_MOUSE, [(0, 0), (0, -0.5)])
    assert rows() == [True, True, False]
    stroke(desk, POINTER_MOUSE, [(0, 0), (0, 0.5)])
    assert rows() == [True, False, True]
    stroke(desk, POINTER_MOUSE, [(0, -0.5)])
    stroke(desk, POINTER_MOUSE, [(0, -0.5), (0, 0)])
    assert rows() == [False, True, True]
    remove = desk.find_element(By.ID, "remove")
    remove.click()
    assert rows() == [False, False, True]
    for before in ([False, True, True], [True, False, True]):
        desk.find_element(By.ID, "undo").click()
        assert rows() == before
    stroke(desk, POINTER_MOUSE, [(0, 0.9)])
    assert not remove.is_displayed()
    stroke(desk, POINTER_MOUSE, [(0, 0)])
    assert remove.is_displayed()
    ActionChains(desk).send_keys(Keys.DELETE).perform()
    assert rows() == [False, False, False]
    desk.find_element(By.ID, "undo").click()
    wait_for_photos(desk)


def test_a_stroke_is_drawn_and_moved_by_the_keyboard_alone(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    canvas = desk.find_element(By.ID, "paper")
    canvas.send_keys(Keys.SPACE, *[Keys.ARROW_RIGHT] * 8)
    assert desk.find_element(By.ID, "heard").get_property("textContent") == "Pen down, 50 across, 50 down."
    canvas.send_keys(Keys.SPACE, *[Keys.ARROW_LEFT] * 8)
    wait_for_photos(desk)
    assert looking.ink(desk) > 0
    canvas.send_keys("m")
    drawn = looking.paper(desk)
    canvas.send_keys(Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_UP, Keys.SPACE)
    assert desk.find_element(By.ID, "heard").get_property("textContent") == "Nothing there, 50 across, 40 down."
    canvas.send_keys(Keys.SPACE, *[Keys.ARROW_DOWN] * 3, Keys.SPACE, Keys.ARROW_DOWN, Keys.SPACE)
    assert desk.find_element(By.ID, "heard").get_property("textContent") == "Put down."
    canvas.send_keys("p")
    moved = looking.paper(desk)
    step = round(0.025 * drawn.shape[1])
    assert np.abs(moved[step:].astype(float) - drawn[:-step]).mean() < 1
    assert (moved != drawn).any()
    wait_for_photos(desk)


def test_the_start_page_searches_if_asked(desk: Browser, settings: Settings, tmp_path: Path, matcher: Matcher) -> None:
    photos = tmp_path / "photos"
    for seed in range(5):
        save_copy(photos / f"{seed}.png", seed, 0)
    index = tmp_path / "index"
    build(index, BuildRequest([photos]), matcher)

    def faces() -> list[int]:
        return desk.execute_script(
            "return [...document.querySelectorAll('#examples li')].map((item) => item.querySelectorAll('img').length)"
        )

    def examples_searched() -> int:
        return sum("quality=fast" in url for url in browser.requested(desk))

    with looking.served_to(desk, settings, index=index) as server:
        desk.get(server.url)
        assert faces() == []
        assert looking.text(desk, "ghosts") == "Photos that match appear here."
        press = desk.find_element(By.ID, "examples-find")
        wait(desk).until(lambda _: press.is_displayed())
        assert desk.find_element(By.ID, "ghosts").is_displayed()
        assert examples_searched() == 0
        press.click()
        wait(desk).until(lambda _: faces() == [3] * 3)
        assert not press.is_displayed()
        assert not desk.find_element(By.ID, "ghosts").is_displayed()
        assert examples_searched() == 12
        assert looking.axe_complaints(desk) == []
        desk.refresh()
        wait(desk).until(lambda _: faces() == [3] * 3)
        assert examples_searched() == 0
        save_copy(photos / "4.png", 5, 0)
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
            before = http.get("/info").json()["index"]["made"]
            shutil.rmtree(index)
            build(index, BuildRequest([photos]), matcher)
            wait_until(lambda: http.get("/info").json()["index"]["made"] != before, "the new index is not used")
        desk.refresh()
        wait(desk).until(lambda d: d.find_element(By.ID, "examples-find").is_displayed())
        assert faces() == []
        desk.find_element(By.ID, "examples-find").click()
        wait(desk).until(lambda _: faces() == [3] * 3)
        assert examples_searched() == 12
        desk.find_element(By.CSS_SELECTOR, "#examples button").click()
        wait_for_photos(desk)
        drawn = looking.ink(desk)
        desk.find_element(By.ID, "undo").click()
        assert 0 < looking.ink(desk) < drawn
        desk.find_element(By.ID, "clear").click()
        kept = "localStorage['sketch-search-examples']"
        desk.execute_script(f"{kept} = JSON.stringify({{ ...JSON.parse({kept}), best: [] }})")
        desk.refresh()
        wait(desk).until(lambda d: looking.text(d, "examples-find") == "None of twelve drawings fits these photos")


def test_a_browser_that_hides_what_is_drawn_is_named(desk: Browser, server: Served) -> None:
    with before_pages(desk, "disturb_canvas"):
        desk.get(server.url)
        draw(desk, DESKTOP, strokes("cross"))
        looking.wait_for_notice(desk, "That did not work")
        assert "fingerprinting" in looking.text(desk, "notice-text")


@pytest.mark.parametrize(("size", "as_it_is"), [((300, 300), True), ((1200, 900), False)])
def test_a_small_image_with_nothing_drawn_on_it_is_sent_as_it_is(
    desk: Browser, server: Served, tmp_path: Path, size: tuple[int, int], as_it_is: bool
) -> None:
    file = tmp_path / "a sketch.png"
    file.write_bytes(encoded(draw_sketch().resize(size)))
    with before_pages(desk, "record_searches"):
        desk.get(server.url)
        desk.find_element(By.ID, "file").send_keys(str(file))
        wait_for_photos(desk)
        assert (looking.last_search(desk) == file.read_bytes()) == as_it_is
        draw(desk, DESKTOP, [[(-0.9, -0.95), (0.9, -0.95)]])
        wait(desk).until(lambda d: d.execute_script("return searches.length") == 2)
        with Image.open(io.BytesIO(looking.last_search(desk))) as image:
            assert image.size == (512, round(512 * size[1] / size[0]))


def test_an_image_that_lies_on_its_side_is_turned_by_one_press_with_what_is_drawn_on_it(
    desk: Browser, server: Served, tmp_path: Path
) -> None:
    sketch = draw_sketch().resize((300, 200))
    file = tmp_path / "a sketch.png"
    file.write_bytes(encoded(sketch))
    with before_pages(desk, "record_searches"):
        desk.get(server.url)
        desk.find_element(By.ID, "file").send_keys(str(file))
        wait_for_photos(desk)
        desk.find_element(By.ID, "turn").click()
        wait(desk).until(lambda d: d.execute_script("return searches.length") == 2)
        with Image.open(io.BytesIO(looking.last_search(desk))) as image:
            assert image.convert("RGB") == sketch.transpose(Image.Transpose.ROTATE_270)
        # A line near the left edge is near the upper one.
        draw(desk, DESKTOP, [[(-0.9, -0.9), (-0.9, 0.9)]])
        desk.find_element(By.ID, "turn").click()
        wait(desk).until(lambda _: looking.paper(desk).shape[1] > looking.paper(desk).shape[0])
        top = looking.paper(desk)[: looking.paper(desk).shape[0] // 8]
        assert (top.min(axis=2) < 128).any(axis=0).mean() > 0.5
        for shape in (2 / 3, 2 / 3, 3 / 2):
            desk.find_element(By.ID, "undo").click()
            wait(desk).until(partial(_has_shape, shape))


def _has_shape(shape: float, driver: Browser) -> bool:
    height, width, _ = looking.paper(driver).shape
    return bool(width / height == pytest.approx(shape, abs=0.01))
