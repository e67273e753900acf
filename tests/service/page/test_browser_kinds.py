"""The page in a real browser: kinds of photos, as stacks that open in place."""

from __future__ import annotations

from functools import partial
from typing import Any

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests import browser
from tests.browser import DESKTOP, PHONE, Browser, Screen, before_pages, draw, run, wait, wait_for_photos
from tests.pictures import strokes
from tests.requirements import needs_browser
from tests.service.looking import axe_complaints, check_quiet, ends_with, find, on_screen, parts, text
from tests.service.served import Served
from tests.service.small_gallery import PHOTOS

pytestmark = needs_browser


def choose(driver: Browser, view: str) -> None:
    """Choose what is shown, "kinds" or "photos", as a click does."""
    driver.find_element(By.XPATH, f"//input[@name='view'][@value='{view}']/..").click()


def kinds_shown(driver: Browser) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = run(driver, "kinds_shown")
    return shown


def wait_for_kinds(driver: Browser) -> list[dict[str, Any]]:
    """Wait until kinds are shown, at least one of them with several photos; what is shown then."""
    wait(driver).until(lambda d: " kinds" in text(d, "status"))
    wait_for_photos(driver)
    shown = kinds_shown(driver)
    assert any(kind["size"] > 1 for kind in shown)
    return shown


def find_kinds(driver: Browser, server: Served, screen: Screen = DESKTOP) -> list[dict[str, Any]]:
    driver.get(server.url)
    wait(driver).until(lambda d: text(d, "about-open") == "23 photos")
    choose(driver, "kinds")
    draw(driver, screen, strokes("star"))
    return wait_for_kinds(driver)


def press_toggle(driver: Browser, place: int) -> None:
    """Press the button that opens and closes a kind, by the keyboard."""
    driver.execute_script(
        "document.querySelectorAll('#results > li')[arguments[0]].querySelector('.toggle').focus()", place
    )
    ActionChains(driver).send_keys(Keys.ENTER).perform()


def has_focus(driver: Browser, selector: str) -> bool:
    found: bool = driver.execute_script("return document.activeElement.matches(arguments[0])", selector)
    return found


def first_stack(shown: list[dict[str, Any]]) -> int:
    return next(place for place, kind in enumerate(shown) if kind["size"] > 1)


def test_each_kind_is_a_stack_that_opens_in_place(desk: Browser, server: Served) -> None:
    shown = find_kinds(desk, server)
    assert text(desk, "status") == f"{len(shown)} kinds, best first"
    assert [kind["rank"] for kind in shown] == list(range(1, len(shown) + 1))
    assert sum(kind["size"] for kind in shown) == PHOTOS
    assert not any(kind["open"] or kind["more"] for kind in shown)
    # Thumbnails of kinds that are closed are not asked for.
    thumbnails = {url for url in browser.requested(desk) if "/thumbnails/" in url}
    assert len(thumbnails) <= len(shown)

    place = first_stack(shown)
    press_toggle(desk, place)
    opened = kinds_shown(desk)
    assert opened[place]["open"]
    assert len(opened[place]["more"]) == min(4, shown[place]["size"] - 1)
    assert [kind["best"] for kind in opened] == [kind["best"] for kind in shown]
    wait_for_photos(desk)
    check_quiet(desk, server)


def test_a_kind_is_closed_by_its_button_and_by_escape(desk: Browser, server: Served) -> None:
    place = first_stack(find_kinds(desk, server))
    press_toggle(desk, place)
    press_toggle(desk, place)
    assert not kinds_shown(desk)[place]["open"]
    press_toggle(desk, place)
    ActionChains(desk).send_keys(Keys.TAB, Keys.ESCAPE).perform()
    assert not kinds_shown(desk)[place]["open"]
    assert has_focus(desk, ".toggle")
    # Escape in a dialog closes the dialog only.
    press_toggle(desk, place)
    desk.find_element(By.CSS_SELECTOR, "#results .photo").click()
    wait(desk).until(lambda d: d.find_element(By.ID, "viewer").is_displayed())
    ActionChains(desk).send_keys(Keys.ESCAPE).perform()
    wait(desk).until(lambda d: not d.find_element(By.ID, "viewer").is_displayed())
    assert kinds_shown(desk)[place]["open"]


def test_the_photos_of_an_open_kind_open_the_viewer_and_can_be_explained(desk: Browser, server: Served) -> None:
    place = first_stack(find_kinds(desk, server))
    press_toggle(desk, place)
    kind = kinds_shown(desk)[place]
    desk.find_element(By.CSS_SELECTOR, ".further .photo").click()
    wait(desk).until(lambda d: d.find_element(By.ID, "viewer-why").is_displayed())
    assert text(desk, "viewer-paths").split("\n") == kind["more"][0].split("\n")
    assert (text(desk, "viewer-rank-label"), text(desk, "viewer-rank")) == ("Kind", str(kind["rank"]))
    desk.find_element(By.ID, "viewer").send_keys(Keys.ARROW_LEFT)
    assert text(desk, "viewer-paths").split("\n") == kind["best"].split("\n")
    desk.find_element(By.ID, "viewer-why").click()
    wait(desk).until(lambda d: d.find_element(By.ID, "why-body").is_displayed())
    check_quiet(desk, server)


def test_why_numbers_photos_as_the_kinds_that_are_shown(desk: Browser, server: Served) -> None:
    with before_pages(desk, "record_answers"):
        shown = find_kinds(desk, server)
    # By their ranks among photos, the best photos of the kinds have other numbers.
    assert desk.execute_script("return window.answers.at(-1).kinds.some(({ rank, best }) => rank !== best.rank)")
    desk.find_element(By.ID, "why-open").click()
    wait(desk).until(lambda d: d.find_element(By.ID, "why-body").is_displayed())
    numbered, beside = desk.execute_script(
        "return ['#why-photos', '#why-nearest']"
        ".map((list) => [...document.querySelectorAll(`${list} > li > .name`)].map((name) => name.textContent))"
    )
    best = [kind["best"].split("\n")[0].rpartition("/")[2] for kind in shown]
    assert numbered == [f"{number}: {name}" for number, name in enumerate(best[:6], 1)]
    assert beside == numbered
    check_quiet(desk, server)


def test_scrolling_brings_every_kind_once(desk: Browser, server: Served) -> None:
    shown = find_kinds(desk, server)
    desk.find_element(By.CSS_SELECTOR, "#count option[value='10']").click()
    wait(desk).until(lambda d: len(kinds_shown(d)) == 10)
    wait(desk).until(lambda d: run(d, "scroll_to_the_end") == "These are all kinds of the best photos.")
    assert kinds_shown(desk) == shown
    check_quiet(desk, server)


def test_what_to_show_is_remembered(desk: Browser, server: Served) -> None:
    find_kinds(desk, server)
    desk.get("about:blank")
    desk.get(server.url)
    wait_for_kinds(desk)
    choose(desk, "photos")
    wait(desk).until(lambda d: text(d, "status") == "20 photos, best first")
    assert all(kind["size"] == 1 for kind in kinds_shown(desk))


def test_a_page_shows_what_the_server_chooses_until_the_person_does(opened: Browser, server: Served) -> None:
    with on_screen(opened, DESKTOP) as driver, before_pages(driver, "record_answers"):
        find(driver, server)
        chosen = driver.execute_script("return window.answers.at(-1).view")
        assert chosen in ("kinds", "photos")
        assert f" {chosen}, best first" in text(driver, "status")
        # Another page is one of the same view.
        wait(driver).until(lambda d: run(d, "scroll_to_the_end").startswith("These are all"))
        assert len({kind["best"] for kind in kinds_shown(driver)}) == len(kinds_shown(driver))
        for view in ("photos", "kinds"):
            choose(driver, view)
            wait(driver).until(partial(ends_with, name="status", end=f" {view}, best first"))
        check_quiet(driver, server)


def test_kinds_that_stay_keep_their_places_while_one_draws(desk: Browser, server: Served) -> None:
    before = find_kinds(desk, server)
    # One stroke, so that one answer follows.
    draw(desk, DESKTOP, strokes("cross")[:1])
    wait(desk).until(lambda d: kinds_shown(d) != before)
    wait_for_photos(desk)
    after = kinds_shown(desk)
    old, new = ({kind["best"]: place for place, kind in enumerate(shown)} for shown in (before, after))
    stayed = [best for best in old.keys() & new.keys() if old[best] < len(after)]
    assert stayed
    assert [new[best] for best in stayed] == [old[best] for best in stayed]
    if text(desk, "status").endswith("kinds"):
        desk.find_element(By.ID, "order").click()
    assert text(desk, "status").endswith("kinds, best first")
    ranks = [kind["rank"] for kind in kinds_shown(desk)]
    assert ranks == list(range(1, len(after) + 1))
    assert not desk.find_element(By.ID, "order").is_displayed()
    check_quiet(desk, server)


def test_where_the_drawing_is_cleared_the_kinds_for_the_rest_are_in_their_own_order(
    desk: Browser, server: Served
) -> None:
    desk.get(f"{server.url}#like=3")
    desk.refresh()
    wait(desk).until(lambda d: text(d, "about-open") == "23 photos")
    choose(desk, "kinds")
    wait(desk).until(partial(ends_with, name="status", end=" kinds, best first"))
    draw(desk, DESKTOP, strokes("star"))
    wait(desk).until(lambda d: len(parts(d)["parts"]) == 2)
    wait_for_photos(desk)
    desk.find_element(By.ID, "clear").click()
    wait(desk).until(lambda d: len(parts(d)["parts"]) == 1)
    wait(desk).until(partial(ends_with, name="status", end=" kinds, best first"))
    assert [kind["rank"] for kind in wait_for_kinds(desk)] == list(range(1, len(kinds_shown(desk)) + 1))
    check_quiet(desk, server)


PLACES: list[tuple[list[list[int]], list[list[int]], bool, list[list[int]]]] = [
    # Without anything before: in their own order.
    ([], [[1, 10], [2, 20]], True, [[1, -1], [2, -1]]),
    # Both stay where they were, whatever their order is now; a new one comes into the free place.
    ([[1, 10], [2, 20], [3, 30]], [[1, 30], [2, 40], [3, 10]], True, [[3, 0], [2, -1], [1, 2]]),
    ([[1, 10], [2, 20], [3, 30]], [[1, 30], [2, 40], [3, 10]], False, [[1, 2], [2, -1], [3, 0]]),
    # It is the same kind if its best photo was or is one of the others.
    ([[1, 10, 11], [2, 20]], [[1, 50], [2, 11, 10]], True, [[2, 0], [1, -1]]),
    ([[1, 10], [2, 20]], [[1, 50], [2, 51, 10]], True, [[2, 0], [1, -1]]),
    # One that fell apart goes on as the part with its best photo.
    ([[1, 10, 11]], [[1, 11], [2, 10]], True, [[2, 0], [1, -1]]),
    # A place that is not there any more is not kept.
    ([[1, 10], [2, 20], [3, 30]], [[1, 30]], True, [[1, 2]]),
]


def test_kinds_have_places(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    for before, after, stay, places in PLACES:
        assert run(desk, "places", before, after, stay) == places, (before, after, stay)


def test_everybody_can_use_kinds(opened: Browser, server: Served) -> None:
    with on_screen(opened, PHONE, dark=False) as driver:
        place = first_stack(find_kinds(driver, server, PHONE))
        assert axe_complaints(driver) == []
        driver.find_elements(By.CSS_SELECTOR, "#results .toggle")[0].click()
        wait(driver).until(lambda d: kinds_shown(d)[place]["open"])
        wait_for_photos(driver)
        assert axe_complaints(driver) == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= PHONE.width
