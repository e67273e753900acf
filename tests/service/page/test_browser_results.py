from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import visibility_of_element_located

from sketch_search.indexer import BuildRequest, build
from sketch_search.model import Matcher
from sketch_search.service.settings import Settings
from tests import browser
from tests.browser import (
    DESKTOP,
    LAPTOP,
    LOW,
    PHONE,
    SMALL,
    TALL,
    WIDE,
    Browser,
    Screen,
    before_pages,
    draw,
    emulate,
    run,
    wait,
    wait_for_photos,
)
from tests.pictures import strokes
from tests.requirements import needs_browser
from tests.service import looking
from tests.service.looking import axe_complaints, check_suits_everybody, find, on_screen, text
from tests.service.served import Served, served
from tests.service.sharding.shards_here import Sharded, cut, links_to, sharded
from tests.service.small_gallery import CLUSTERS, PHOTOS, save_copy

pytestmark = needs_browser


# What the page calls a view.
SAID = {"groups": " groups, best first", "photos": " photos, best first"}


def show(driver: Browser, view: str) -> None:
    looking.choose(driver, f"label:has([value='{view}'])")


def groups_shown(driver: Browser) -> list[dict[str, Any]]:
    return run(driver, "groups_shown")


def wait_for_groups(driver: Browser) -> list[dict[str, Any]]:
    """Wait until groups are shown, at least one of them with several photos; what is shown then."""
    wait_for_photos(driver, lambda d: "group" in looking.text(d, "status"))
    shown = groups_shown(driver)
    assert any(group["size"] > 1 for group in shown)
    return shown


def find_groups(driver: Browser, server: Served) -> list[dict[str, Any]]:
    driver.get(server.url)
    wait(driver).until(lambda d: looking.text(d, "about-open") == "23 photos")
    show(driver, "groups")
    draw(driver, DESKTOP, strokes("star"))
    return wait_for_groups(driver)


def press_toggle(driver: Browser, place: int) -> None:
    driver.execute_script(
        "document.querySelectorAll('#results > li')[arguments[0]].querySelector('.toggle').focus()", place
    )
    ActionChains(driver).send_keys(Keys.ENTER).perform()


def has_focus(driver: Browser, selector: str) -> bool:
    return driver.execute_script("return document.activeElement.matches(arguments[0])", selector)


def test_each_group_is_a_stack_that_opens_in_place_and_numbers_its_photos(desk: Browser, server: Served) -> None:
    with before_pages(desk, "record_searches"):
        shown = find_groups(desk, server)
    assert looking.text(desk, "status").endswith(SAID["groups"])
    assert [group["rank"] for group in shown] == list(range(1, len(shown) + 1))
    assert sum(group["size"] for group in shown) == PHOTOS
    assert not any(group["open"] or group["more"] for group in shown)
    thumbnails = {url for url in browser.requested(desk) if "/thumbnails/" in url}
    assert len(thumbnails) <= len(shown)

    place = next(place for place, group in enumerate(shown) if group["size"] > 1)
    press_toggle(desk, place)
    opened = groups_shown(desk)
    assert opened[place]["open"]
    wait(desk).until(lambda d: len(groups_shown(d)[place]["more"]) == shown[place]["size"] - 1)
    assert [group["best"] for group in opened] == [group["best"] for group in shown]
    wait_for_photos(desk)
    assert looking.axe_complaints(desk) == []
    press_toggle(desk, place)
    assert not groups_shown(desk)[place]["open"]
    press_toggle(desk, place)
    ActionChains(desk).send_keys(Keys.TAB, Keys.ESCAPE).perform()
    assert not groups_shown(desk)[place]["open"]
    assert has_focus(desk, ".toggle")
    press_toggle(desk, place)
    desk.find_element(By.CSS_SELECTOR, "#results .photo").click()
    wait(desk).until(lambda d: d.find_element(By.ID, "viewer").is_displayed())
    ActionChains(desk).send_keys(Keys.ESCAPE).perform()
    wait(desk).until(lambda d: not d.find_element(By.ID, "viewer").is_displayed())
    group = groups_shown(desk)[place]
    assert group["open"]
    desk.find_element(By.CSS_SELECTOR, ".further .photo").click()
    wait(desk).until(lambda d: d.find_element(By.ID, "viewer-why").is_displayed())
    assert looking.text(desk, "viewer-paths").split("\n") == group["more"][0].split("\n")
    assert (looking.text(desk, "viewer-rank-label"), looking.text(desk, "viewer-rank")) == ("Group", str(group["rank"]))
    desk.find_element(By.ID, "viewer").send_keys(Keys.ARROW_LEFT)
    assert looking.text(desk, "viewer-paths").split("\n") == group["best"].split("\n")
    desk.find_element(By.ID, "viewer-why").click()
    wait(desk).until(lambda d: d.find_element(By.ID, "why-body").is_displayed())
    desk.find_element(By.ID, "why-close").click()
    desk.find_element(By.ID, "viewer-close").click()
    # By their ranks among photos, the best photos of the groups have other numbers.
    assert desk.execute_script("return searches.at(-1).answer.groups.some(({ rank, best }) => rank !== best.rank)")
    desk.find_element(By.ID, "why-open").click()
    wait(desk).until(lambda d: d.find_element(By.ID, "why-body").is_displayed())
    numbered, beside = desk.execute_script(
        "return ['#why-photos', '#why-nearest']"
        ".map((list) => [...document.querySelectorAll(`${list} > li > .name`)].map((name) => name.textContent))"
    )
    best = [group["best"].split("\n")[0].rpartition("/")[2] for group in shown]
    assert numbered == [f"{number}: {name}" for number, name in enumerate(best[:6], 1)]
    assert beside == numbered


def test_a_stroke_is_answered_by_one_variant_and_the_resting_pen_by_all(desk: Browser, settings: Settings) -> None:
    with looking.served_to(desk, settings, variants=3) as server:
        desk.get(server.url)
        wait(desk).until(lambda d: looking.text(d, "about-open") == "23 photos")
        draw(desk, DESKTOP, strokes("star")[:1])
        # What is shown is called busy until then.
        wait_for_photos(desk)
        asked = [query.get("quality") for query in looking.searches(desk)]
        assert (asked[0], asked[-1]) == (["draft"], None)
        assert looking.text(desk, "status") == "20 of 23 photos, best first"


# The number of files of each picture: the same pixels in files that differ, so that each is a photo.
FILES = [1, 4, 1, 2, 3, 1, 1, 5, 2, 1, 1, 1]
ALL_FILES = sum(FILES)


@pytest.fixture(scope="module")
def doubled(tmp_path_factory: pytest.TempPathFactory, settings: Settings, matcher: Matcher) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("doubled")
    for picture, files in enumerate(FILES):
        for number in range(files):
            save_copy(folder / "photos" / f"{picture}-{number}.png", picture, number)
    build(folder / "index", BuildRequest([folder / "photos"], clusters=CLUSTERS, embedder="ret"), matcher)
    with served(settings, index=folder / "index") as running:
        yield running


def folded(driver: Browser) -> list[dict[str, Any]]:
    """Returns the photos that stand for several; see ``scripts/copies_shown.js``."""
    return run(driver, "copies_shown")


def press_first(driver: Browser) -> None:
    driver.execute_script("document.querySelector('#results .times:not([hidden])').focus()")
    ActionChains(driver).send_keys(Keys.ENTER).perform()


def wait_for_copies(driver: Browser) -> dict[str, Any]:
    """Wait until the copies of the first photo that has some are shown; what is shown then."""
    wait(driver).until(lambda d: folded(d)[0]["copies"])
    return folded(driver)[0]


def picture(name: str) -> str:
    return name.split("-")[0]


def test_each_picture_is_shown_once_and_says_how_many_photos_it_stands_for(desk: Browser, doubled: Served) -> None:
    looking.find(desk, doubled)
    shown = looking.names(desk)
    assert looking.text(desk, "status") == f"{len(FILES)} photos, best first"
    assert sorted(int(picture(name)) for name in shown) == list(range(len(FILES)))
    several = [f"\u00d7{FILES[int(picture(name))]}" for name in shown if FILES[int(picture(name))] > 1]
    assert [one["stands"] for one in folded(desk)] == several
    assert not any(one["open"] or one["copies"] for one in folded(desk))
    press_first(desk)
    first = wait_for_copies(desk)
    count = FILES[int(picture(first["photo"]))]
    assert first["open"]
    assert first["says"] == f"{count - 1} near duplicate{'s' if count > 2 else ''} of {first['photo']}"
    assert len({first["photo"], *first["copies"]}) == count
    assert {picture(copy) for copy in first["copies"]} == {picture(first["photo"])}
    wait_for_photos(desk)
    assert looking.axe_complaints(desk) == []
    press_first(desk)
    assert not folded(desk)[0]["open"]
    press_first(desk)
    wait_for_copies(desk)
    ActionChains(desk).send_keys(Keys.ESCAPE).perform()
    assert not folded(desk)[0]["open"]
    assert desk.execute_script("return document.activeElement.matches('.times')")


def test_a_copy_can_be_looked_at_and_liked_and_folding_turned_off(desk: Browser, doubled: Served) -> None:
    looking.find(desk, doubled)
    press_first(desk)
    first = wait_for_copies(desk)
    desk.execute_script("document.querySelector('.copies .photo').click()")
    wait(desk).until(lambda d: looking.text(d, "viewer-paths") == first["copies"][0])
    assert not desk.find_element(By.ID, "viewer-rank").is_displayed()
    desk.find_element(By.ID, "viewer").send_keys(Keys.ARROW_LEFT)
    assert looking.text(desk, "viewer-paths") == first["photo"]
    desk.find_element(By.ID, "viewer").send_keys(Keys.ARROW_RIGHT)
    desk.find_element(By.ID, "viewer-like").click()
    wait(desk).until(lambda d: "#like=" in d.current_url and first["copies"][0] not in looking.names(d))
    assert first["photo"] not in looking.names(desk)
    wait_for_photos(desk)
    looking.choose(desk, "option[value='50']")
    looking.choose(desk, "#fold")
    wait(desk).until(lambda d: looking.text(d, "status") == f"{ALL_FILES - 1} more photos, best first")
    assert folded(desk) == []
    desk.refresh()
    wait(desk).until(lambda d: looking.text(d, "status") == f"{ALL_FILES - 1} more photos, best first")
    assert folded(desk) == []


SHARDS = 3


@pytest.fixture(scope="module")
def many(
    settings: Settings, index_path: Path, matcher: Matcher, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sharded]:
    parts = [photo % SHARDS for photo in range(PHOTOS)]
    links = links_to(cut(index_path, matcher, tmp_path_factory.mktemp("shards"), parts), matcher)
    with sharded(settings, matcher, links) as server:
        yield server


def break_one(many: Sharded, number: int) -> None:
    """Break a part, and wait until the server knows: before that, it may not find photos of others either."""
    many.links[number].broken = True
    many.answers(sum(not link.broken for link in many.links))


def search_again(driver: Browser, told: str) -> None:
    """Search once more, and wait until this is told of the answer; the photos of the one before stay until then."""
    driver.find_element(By.ID, "search").click()
    wait_for_photos(driver, lambda d: looking.text(d, "missing") == told)
    # The complaint is about a picture that a broken part has not sent.
    browser.complaints(driver)


def test_the_page_says_how_many_parts_did_not_answer_until_all_do_again(opened: Browser, many: Sharded) -> None:
    many.answers(SHARDS)
    with looking.on_screen(opened, PHONE, dark=True) as driver:
        looking.find(driver, many.served, screen=PHONE)
        assert looking.text(driver, "missing") == ""
        break_one(many, 1)
        search_again(driver, "1 of 3 parts of this collection did not answer; photos there are missing.")
        assert looking.names(driver)
        line = driver.find_element(By.ID, "missing")
        assert line.is_displayed()
        assert line.rect["y"] < driver.find_element(By.ID, "results").rect["y"]
        looking.check_suits_everybody(driver)
        break_one(many, 2)
        search_again(driver, "2 of 3 parts of this collection did not answer; photos there are missing.")
        for link in many.links:
            link.broken = False
        many.answers(SHARDS)
        search_again(driver, "")


def test_the_line_above_the_photos_is_never_cut(opened: Browser, server: Served) -> None:
    with on_screen(opened, TALL) as driver:
        find(driver, server, screen=TALL)
        driver.execute_script("document.querySelector('#results .small.like').click()")
        wait_for_photos(driver, lambda d: d.find_element(By.ID, "parts-undo").is_displayed())
        for said in ("20 of 23 photos, best first", "1,200 of 123,456 photos, newest first"):
            driver.execute_script("document.getElementById('status').textContent = arguments[0]", said)
            for screen in (TALL, LAPTOP, LOW, DESKTOP, WIDE):
                emulate(driver, screen)
                assert run(driver, "cut", "#bar > *") == [], screen.name
                assert driver.execute_script("return document.getElementById('bar').clientHeight") < 100, screen.name


def check_views_stay_on_the_screen(driver: Browser) -> None:
    for radio in driver.find_elements(By.NAME, "why-view"):
        chosen = radio.find_element(By.XPATH, "..")
        if not chosen.is_displayed():
            continue
        chosen.click()
        assert radio.is_selected()
        for shown in (driver.find_element(By.ID, "why-lead"), chosen):
            # Not its rect, which is whole where a box around it cuts it off.
            assert run(driver, "visible_share", shown) in (None, 1)


def check_shapes_fit(driver: Browser, screen: Screen) -> None:
    """Turn the paper to each shape: it fits the screen, and no tool is covered."""
    paper, desk = (driver.find_element(By.ID, name).rect for name in ("paper", "desk"))
    assert paper["width"] > (0.99 if screen.phone else 0.8) * desk["width"]
    for shape in (4 / 3, 3 / 4, 1):
        paper, desk = (driver.find_element(By.ID, name).rect for name in ("paper", "desk"))
        assert paper["width"] / paper["height"] == pytest.approx(shape, rel=0.01)
        assert paper["y"] + paper["height"] < screen.height
        assert driver.execute_script("return document.documentElement.scrollWidth") <= screen.width
        assert run(driver, "covered", "#desk") == []
        if not screen.phone:
            assert desk["y"] + desk["height"] <= screen.height
        driver.execute_script("document.getElementById('turn').click()")
    wait_for_photos(driver)


@pytest.mark.parametrize("screen", [SMALL, TALL, LOW], ids=lambda screen: screen.name)
def test_the_page_fits_the_screen_and_everybody_can_press_it(opened: Browser, server: Served, screen: Screen) -> None:
    def check(name: str) -> None:
        assert run(driver, "covered", name) == []
        # On two screens, one of them dark: the others have the same elements.
        assert screen not in (LOW, TALL) or axe_complaints(driver) == []

    with on_screen(opened, screen, dark=screen.phone) as driver:
        driver.get(server.url)
        wait(driver).until(lambda d: text(d, "about-open") == "23 photos")
        check("#desk")
        draw(driver, screen, strokes("star"))
        wait_for_photos(driver)
        check("#desk")
        for menu in ("filter", "settings"):
            driver.find_element(By.CSS_SELECTOR, f"#{menu} > summary").click()
            assert run(driver, "covered", f"#{menu} .panel") == []
            driver.find_element(By.CSS_SELECTOR, f"#{menu} > summary").click()
        if screen.phone:
            driver.find_element(By.ID, "tools-open").click()
            check("#desk")
            # There is no mouse to show them by.
            assert run(driver, "covered", "#results li:first-child .over") == []
        for dialog, shown in (("about", "about-title"), ("help", "help-title"), ("why", "why-views")):
            driver.find_element(By.ID, f"{dialog}-open").click()
            wait(driver).until(visibility_of_element_located((By.ID, shown)))
            check(f"#{dialog}")
            if screen.phone and dialog == "why":
                check_views_stay_on_the_screen(driver)
            driver.find_element(By.ID, f"{dialog}-close").click()
        driver.find_element(By.CSS_SELECTOR, "#results .photo").click()
        wait(driver).until(lambda d: not d.find_elements(By.CSS_SELECTOR, "dialog.loading"))
        check("#viewer")
        if not screen.phone:
            last, steps = (driver.find_element(By.CSS_SELECTOR, one).rect for one in ("#viewer-original", ".steps"))
            assert last["y"] + last["height"] <= steps["y"]
        driver.find_element(By.ID, "viewer-close").click()
        if screen.phone:
            driver.find_element(By.ID, "tools-open").click()
        driver.find_element(By.ID, "choose").click()
        for dark in (False, True):
            emulate(driver, screen, dark=dark)
            check_suits_everybody(driver, screen)
        ring = "return getComputedStyle(document.querySelector('.swatch'), '::after').borderTopColor"
        assert driver.execute_script(ring) == "rgb(163, 164, 155)"
        check_shapes_fit(driver, screen)
