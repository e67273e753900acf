"""The page in a real browser: photos as parts of the query, "More like this" and "Not this"."""

from __future__ import annotations

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests import browser
from tests.browser import PHONE, Browser, wait, wait_for_photos
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
from tests.service.small_gallery import PHOTOS

pytestmark = needs_browser


def photo(driver: Browser, place: int) -> tuple[str, str]:
    """Name and id of the photo in this place of the grid."""
    name, source = driver.execute_script(
        "const tile = document.querySelectorAll('#results .tile')[arguments[0]];"
        "return [tile.querySelector('.name').textContent, tile.querySelector('img').dataset.path];",
        place,
    )
    return name, source.split("?")[0].split("/")[-1]


def press(driver: Browser, deed: str, place: int) -> None:
    """Press "like" or "unlike" of the photo in this place, by the keyboard."""
    driver.execute_script(
        "document.querySelectorAll('#results .tile')[arguments[0]].querySelector(`.small.${arguments[1]}`).focus()",
        place,
        deed,
    )
    ActionChains(driver).send_keys(Keys.ENTER).perform()


def test_a_liked_photo_leads_and_an_unliked_one_leaves(desk: Browser, server: Served) -> None:
    find(desk, server)
    assert not parts(desk)["shown"]
    liked, liked_id = photo(desk, 5)
    press(desk, "like", 5)
    wait_for_search(desk, f"#like={liked_id}")
    wait(desk).until(lambda d: names(d)[0] == liked)
    assert parts(desk)["parts"] == ["Remove the drawing", f"Remove: More like {liked}"]
    pressed = desk.execute_script("return document.querySelector('#results .small.like').ariaPressed")
    assert pressed == "true"

    unliked, unliked_id = photo(desk, 3)
    press(desk, "unlike", 3)
    wait_for_search(desk, f"#like={liked_id}&unlike={unliked_id}")
    wait(desk).until(lambda d: unliked not in names(d))
    assert parts(desk)["parts"][1:] == [f"Remove: More like {liked}", f"Remove: Not {unliked}"]
    last = searches(desk)[-1]
    assert (last["like"], last["unlike"]) == ([liked_id], [unliked_id])
    assert browser.complaints(desk) == []


def test_each_part_can_be_removed_and_undone(desk: Browser, server: Served) -> None:
    find(desk, server)
    before = names(desk)
    _, photo_id = photo(desk, 2)
    press(desk, "like", 2)
    wait_for_search(desk, f"#like={photo_id}")
    desk.find_element(By.CSS_SELECTOR, "#parts .like").click()
    wait_for_search(desk, "")
    wait(desk).until(lambda d: names(d) == before)
    desk.find_element(By.ID, "parts-undo").click()
    wait_for_search(desk, f"#like={photo_id}")
    desk.find_element(By.ID, "parts-undo").click()
    wait_for_search(desk, "")
    assert not parts(desk)["undo"]
    check_quiet(desk, server)


def test_without_a_drawing_liked_photos_are_enough(desk: Browser, server: Served) -> None:
    find(desk, server)
    liked, photo_id = photo(desk, 4)
    press(desk, "like", 4)
    wait_for_search(desk, f"#like={photo_id}")
    desk.find_element(By.ID, "parts-drawing").click()
    wait(desk).until(lambda d: parts(d)["parts"] == [f"Remove: More like {liked}"])
    wait_for_photos(desk)
    assert names(desk)[0] == liked
    # Neither drawing nor photo: nothing is left to search with. The line may be drawn anew at any time.
    desk.execute_script("document.querySelector('#parts .like').click()")
    wait_for_notice(desk, "What are you looking for?")
    check_quiet(desk, server)


def test_where_no_photo_is_left_the_page_says_so(desk: Browser, server: Served) -> None:
    find(desk, server)
    desk.find_element(By.CSS_SELECTOR, "#count option[value='50']").click()
    wait(desk).until(lambda d: len(names(d)) == PHOTOS)
    ids = [photo(desk, place)[1] for place in range(PHOTOS)]
    desk.execute_script("location.hash = arguments[0]", f"unlike={','.join(ids)}")
    wait_for_notice(desk, "No photos left")
    assert names(desk) == []
    desk.back()
    wait(desk).until(lambda d: len(names(d)) == PHOTOS)
    check_quiet(desk, server)


def test_an_address_with_photos_can_be_shared_and_reloaded(desk: Browser, server: Served) -> None:
    find(desk, server)
    liked, photo_id = photo(desk, 4)
    desk.find_element(By.ID, "clear").click()
    wait_for_notice(desk, "What are you looking for?")
    desk.get("about:blank")
    desk.get(f"{server.url}/#like={photo_id}")
    wait_for_photos(desk)
    assert names(desk)[0] == liked
    assert parts(desk)["parts"] == [f"Remove: More like {liked}"]
    found = names(desk)
    desk.refresh()
    wait_for_photos(desk)
    assert names(desk) == found
    check_quiet(desk, server)


def test_a_photo_of_an_address_that_is_gone_is_told_and_can_be_taken_out(desk: Browser, server: Served) -> None:
    desk.get(f"{server.url}/#like=4,987654")
    wait_for_notice(desk, "A photo is gone")
    assert "987654" in text(desk, "notice-text")
    # Its name stands in place of the thumbnail that it does not have.
    wait(desk).until(lambda d: text(d, "parts-list").count("photo 987654") == 1)
    desk.execute_script("document.querySelectorAll('#parts .like')[1].click()")
    wait_for_search(desk, "#like=4")
    wait(desk).until(lambda d: len(names(d)) > 1)
    # The line may be drawn anew at any time.
    desk.execute_script("document.querySelector('#parts .like').click()")
    wait_for_notice(desk, "What are you looking for?")


def test_back_leaves_the_photo_first_and_then_takes_the_like_back(desk: Browser, server: Served) -> None:
    find(desk, server)
    before = names(desk)
    liked, photo_id = photo(desk, 1)
    desk.find_elements(By.CSS_SELECTOR, "#results .photo")[1].click()
    desk.find_element(By.ID, "viewer-like").click()
    wait_for_search(desk, f"#like={photo_id}")
    assert not desk.find_element(By.ID, "viewer").is_displayed()
    wait(desk).until(lambda d: names(d)[0] == liked)
    desk.find_element(By.CSS_SELECTOR, "#results .photo").click()
    wait(desk).until(lambda d: d.find_element(By.ID, "viewer").is_displayed())
    assert desk.find_element(By.ID, "viewer-like").get_attribute("aria-pressed") == "true"
    desk.back()
    wait(desk).until(lambda d: not d.find_element(By.ID, "viewer").is_displayed())
    assert parts(desk)["hash"] == f"#like={photo_id}"
    desk.back()
    wait_for_search(desk, "")
    wait(desk).until(lambda d: names(d) == before)
    desk.forward()
    wait_for_search(desk, f"#like={photo_id}")
    check_quiet(desk, server)


def test_everybody_can_use_photos_as_parts(opened: Browser, server: Served) -> None:
    with on_screen(opened, PHONE, dark=True) as driver:
        find(driver, server, screen=PHONE)
        _, liked = photo(driver, 1)
        driver.find_elements(By.CSS_SELECTOR, "#results .small.like")[1].click()
        wait_for_search(driver, f"#like={liked}")
        _, unliked = photo(driver, 2)
        driver.find_elements(By.CSS_SELECTOR, "#results .small.unlike")[2].click()
        wait_for_search(driver, f"#like={liked}&unlike={unliked}")
        assert axe_complaints(driver) == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= PHONE.width
        driver.find_element(By.CSS_SELECTOR, "#results .photo").click()
        wait(driver).until(lambda d: not d.find_elements(By.CSS_SELECTOR, "dialog.loading"))
        assert axe_complaints(driver) == []
