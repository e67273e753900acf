"""The page in a real browser: a photo of one's own as the query, and filters."""

from __future__ import annotations

from pathlib import Path

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests import browser
from tests.browser import DESKTOP, PHONE, Browser, draw, wait, wait_for_photos
from tests.pictures import encoded, strokes
from tests.requirements import needs_browser
from tests.service.looking import (
    axe_complaints,
    check_quiet,
    find,
    names,
    on_screen,
    parts,
    searches,
    text,
    wait_for_notice,
    wait_for_search,
)
from tests.service.served import Served
from tests.service.small_gallery import PHOTOS, draw_photo, draw_sketch

pytestmark = needs_browser

# The first photo is there three times, and goes by the first of its names.
IN_FOLDER = ["again.png", *(f"p{seed:02}.png" for seed in range(3, PHOTOS, 3))]
FOLDER_HASH = "#folder=gr%C3%B6%C3%9Fe"


def choose_file(driver: Browser, file: Path) -> None:
    driver.find_element(By.ID, "file").send_keys(str(file))


def kind(driver: Browser) -> str | None:
    """What the image is searched with as; None where nobody is asked."""
    chosen: str | None = driver.execute_script(
        "const asked = document.getElementById('as');"
        "return asked.checkVisibility() ? asked.querySelector(':checked').value : null;"
    )
    return chosen


def filter_by(driver: Browser, **fields: str) -> None:
    """Open the form of filters and write this into it, as a keyboard would; then apply it."""
    driver.find_element(By.CSS_SELECTOR, "#filter summary").click()
    wait(driver).until(lambda d: d.find_element(By.ID, "filter-folder").is_displayed())
    # How a day is typed depends on the browser's language.
    driver.execute_script(
        "for (const [name, value] of Object.entries(arguments[0])) {"
        "  const field = document.getElementById(`filter-${name}`);"
        "  field.value = value;"
        "  field.dispatchEvent(new Event('input'));"
        "  field.focus();"
        "}",
        fields,
    )
    ActionChains(driver).send_keys(Keys.ENTER).perform()


def test_a_photo_of_ones_own_is_searched_with_as_a_photo(desk: Browser, server: Served, tmp_path: Path) -> None:
    file = tmp_path / "mine.png"
    file.write_bytes(encoded(draw_photo(5)))
    desk.get(server.url)
    choose_file(desk, file)
    wait(desk).until(lambda d: names(d)[:1] == ["p05.png"])
    wait_for_photos(desk)
    assert kind(desk) == "photo"
    assert searches(desk)[-1]["kind"] == ["photo"]
    # Photos of the gallery beside it are further parts of the query.
    desk.find_elements(By.CSS_SELECTOR, "#results .small.like")[1].click()
    wait(desk).until(lambda d: len(parts(d)["parts"]) == 2)
    wait_for_photos(desk)
    assert parts(desk)["parts"][0] == "Remove the photo"
    assert {"kind", "like"} <= searches(desk)[-1].keys()
    desk.find_element(By.ID, "parts-drawing").click()
    wait(desk).until(lambda d: len(parts(d)["parts"]) == 1)
    assert kind(desk) is None
    asked = wait(desk).until(searches)
    wait_for_photos(desk)
    assert asked[-1].keys() & {"kind", "like"} == {"like"}
    assert browser.complaints(desk) == []


def test_what_an_image_is_searched_with_as_can_be_chosen_and_undone(
    desk: Browser, server: Served, tmp_path: Path
) -> None:
    file = tmp_path / "mine.png"
    file.write_bytes(encoded(draw_photo(5)))
    desk.get(server.url)
    choose_file(desk, file)
    wait(desk).until(lambda d: kind(d) == "photo")
    desk.find_element(By.XPATH, "//input[@name='as'][@value='sketch']/..").click()
    wait(desk).until(lambda d: kind(d) == "sketch")
    wait_for_photos(desk)
    wait(desk).until(lambda d: d.find_element(By.ID, "why-open").is_displayed())
    desk.refresh()
    wait_for_photos(desk)
    assert kind(desk) == "sketch"
    desk.find_element(By.XPATH, "//input[@name='as'][@value='photo']/..").click()
    wait(desk).until(lambda d: names(d)[:1] == ["p05.png"])
    desk.refresh()
    wait(desk).until(lambda d: names(d)[:1] == ["p05.png"])
    assert kind(desk) == "photo"
    check_quiet(desk, server)


def test_an_image_of_a_drawing_is_searched_with_as_a_drawing(desk: Browser, server: Served, tmp_path: Path) -> None:
    file = tmp_path / "drawn.png"
    file.write_bytes(encoded(draw_sketch()))
    desk.get(server.url)
    choose_file(desk, file)
    wait_for_photos(desk)
    assert kind(desk) == "sketch"
    assert "kind" not in searches(desk)[-1]
    # Drawn over, it can be nothing else.
    draw(desk, DESKTOP, [[(-0.9, -0.95), (0.9, -0.95)]])
    wait(desk).until(lambda d: kind(d) is None)
    desk.find_element(By.ID, "undo").click()
    wait(desk).until(lambda d: kind(d) == "sketch")
    wait_for_photos(desk)
    assert browser.complaints(desk) == []


def test_a_filter_is_a_part_that_can_be_removed_undone_and_shared(desk: Browser, server: Served) -> None:
    find(desk, server)
    everything = names(desk)
    filter_by(desk, folder="/größe/")
    wait_for_search(desk, FOLDER_HASH)
    wait(desk).until(lambda d: sorted(names(d)) == IN_FOLDER)
    assert parts(desk)["parts"] == ["Remove the drawing", "Remove: In größe"]
    assert not desk.find_element(By.ID, "filter-form").is_displayed()
    desk.refresh()
    wait(desk).until(lambda d: sorted(names(d)) == IN_FOLDER)
    desk.find_element(By.CSS_SELECTOR, "#parts .filter").click()
    wait_for_search(desk, "")
    wait(desk).until(lambda d: names(d) == everything)
    desk.find_element(By.ID, "parts-undo").click()
    wait_for_search(desk, FOLDER_HASH)
    wait(desk).until(lambda d: sorted(names(d)) == IN_FOLDER)
    check_quiet(desk, server)


def test_photos_are_filtered_by_days_and_liked_ones_lead(desk: Browser, server: Served) -> None:
    desk.get(f"{server.url}/#like=4")
    wait_for_photos(desk)
    found = names(desk)
    filter_by(desk, after="2001-02-03")
    wait_for_search(desk, "#like=4&after=2001-02-03")
    assert parts(desk)["parts"][1:] == ["Remove: From 2001-02-03"]
    assert names(desk) == found
    filter_by(desk, before="2001-02-04")
    wait_for_notice(desk, "No photos left")
    assert "filter" in text(desk, "notice-text")
    assert parts(desk)["hash"] == "#like=4&after=2001-02-03&before=2001-02-04"
    assert parts(desk)["parts"][1:] == ["Remove: From 2001-02-03", "Remove: Until 2001-02-04"]
    desk.find_elements(By.CSS_SELECTOR, "#parts .filter")[1].click()
    wait_for_search(desk, "#like=4&after=2001-02-03")
    wait(desk).until(lambda d: names(d) == found)
    check_quiet(desk, server)


def test_a_filter_alone_is_nothing_to_search_with(desk: Browser, server: Served) -> None:
    desk.get(f"{server.url}/{FOLDER_HASH}")
    wait_for_notice(desk, "What are you looking for?")
    assert parts(desk)["parts"] == ["Remove: In größe"]
    draw(desk, DESKTOP, strokes("star"))
    wait(desk).until(lambda d: sorted(names(d)) == IN_FOLDER)
    check_quiet(desk, server)


def test_everybody_can_use_photos_of_their_own_and_filters(opened: Browser, server: Served, tmp_path: Path) -> None:
    file = tmp_path / "mine.png"
    file.write_bytes(encoded(draw_photo(6)))
    with on_screen(opened, PHONE, dark=True) as driver:
        driver.get(f"{server.url}/{FOLDER_HASH}&after=2001-02-03")
        choose_file(driver, file)
        wait_for_photos(driver)
        assert kind(driver) == "photo"
        driver.find_element(By.CSS_SELECTOR, "#filter summary").click()
        wait(driver).until(lambda d: d.find_element(By.ID, "filter-folder").is_displayed())
        assert axe_complaints(driver) == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= PHONE.width
