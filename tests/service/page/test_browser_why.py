"""The page in a real browser: why photos were found, and who can use it all."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.color import Color

from tests import browser
from tests.browser import DESKTOP, Browser, Screen, run, wait, wait_for_photos
from tests.requirements import needs_browser
from tests.service import looking
from tests.service.served import Served

pytestmark = needs_browser


def open_why(driver: Browser, server: Served, screen: Screen = DESKTOP) -> None:
    looking.find(driver, server, "house", screen=screen)
    ask_why(driver)


def ask_why(driver: Browser) -> None:
    driver.find_element(By.ID, "why-open").click()
    wait(driver).until(lambda d: d.find_element(By.ID, "why-body").is_displayed())
    # What is laid over a photo is drawn again when the photo has come.
    wait(driver).until(
        lambda d: d.execute_script(
            "return [...document.querySelectorAll('#why .layers img')].every((one) => one.complete && one.naturalWidth)"
        )
    )


def overlays(driver: Browser) -> list[str]:
    """Returns the overlays of the sketch and of each photo."""
    return driver.execute_script(
        "return [...document.querySelectorAll('#why .layers canvas')].map((canvas) => canvas.toDataURL())"
    )


def pixels(url: str) -> NDArray[np.uint8]:
    """An image in a data URL: (H, W, 4)."""
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA"))


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
    assert looking.text(desk, "why-said").endswith("is pinned as A.")
    assert [chip.get_attribute("data-letter") for chip in chips].count("A") == 1
    desk.find_element(By.ID, "why-close").click()
    # One photo is explained from its own dialog.
    desk.find_element(By.CSS_SELECTOR, "#results .photo").click()
    name = looking.text(desk, "viewer-title")
    desk.find_element(By.ID, "viewer-why").click()
    wait(desk).until(lambda d: looking.text(d, "why-title") == f"Why {name}?")
    wait(desk).until(lambda d: len(d.find_elements(By.CSS_SELECTOR, "#why-photos li")) == 1)
    desk.find_element(By.ID, "why-close").click()
    assert desk.find_element(By.ID, "viewer").is_displayed()


def test_photos_are_compared_with_the_liked_photo_that_is_chosen(desk: Browser, server: Served) -> None:
    desk.get(f"{server.url}/#like=4,9")
    wait_for_photos(desk)
    ask_why(desk)
    assert "the photo you like" in looking.text(desk, "why-lead")
    # Pairs that the relation score rests on are of a sketch and a photo.
    assert not desk.find_element(By.ID, "why-pairs").is_displayed()
    first = desk.find_element(By.ID, "why-sketch-image").get_attribute("src")
    liked = desk.find_elements(By.CSS_SELECTOR, "#why-liked option")
    assert [option.get_attribute("value") for option in liked] == ["4", "9"]
    liked[1].click()
    wait(desk).until(lambda d: d.find_element(By.ID, "why-sketch-image").get_attribute("src") != first)
    wait(desk).until(lambda d: d.find_element(By.ID, "why-body").is_displayed())
    asked = [url for url in browser.requested(desk) if "/explain?" in url]
    assert all("like=9" in url for url in asked[1:])
    assert "like=4" in asked[0]


def test_every_view_of_an_explanation_shows_something_else(desk: Browser, server: Served) -> None:
    open_why(desk, server)
    seen = {"parts": overlays(desk)}
    for view in ("look", "pairs"):
        desk.find_element(By.XPATH, f"//input[@name='why-view'][@value='{view}']/..").click()
        seen[view] = overlays(desk)
    assert len(set(map(tuple, seen.values()))) == 3
    # What does not count is grey.
    photo = pixels(seen["pairs"][1])
    covered = photo[..., 3] == 255
    assert covered.mean() > 0.2
    assert (np.ptp(photo[..., :3].astype(int), axis=2) <= 8)[covered].mean() > 0.5
    # Each pair that counts has a colour of its own on both sides. Read in one step: the words are written again
    # whenever something is drawn.
    said = desk.execute_script(
        "return [...document.querySelectorAll('#why-photos li:first-child .says span')]"
        ".map((word) => getComputedStyle(word).borderBottomColor)"
    )
    colours = [Color.from_string(colour) for colour in said]
    assert len({colour.hex for colour in colours}) == len(said) > 1
    strongest = np.array([int(colours[0].hex[at : at + 2], 16) for at in (1, 3, 5)])
    for side in (pixels(overlay).reshape(-1, 4) for overlay in seen["pairs"][:2]):
        assert (np.abs(side[:, :3].astype(int) - strongest).max(axis=1) <= 4).any()
    desk.find_element(By.XPATH, "//input[@name='why-view'][@value='look']/..").click()
    before = overlays(desk)
    desk.find_element(By.ID, "why-share").send_keys(Keys.END)
    assert looking.text(desk, "why-share-value") == "95 %"
    assert overlays(desk) != before
    # Look-alikes that the drawing and a photo share are framed.
    desk.find_element(By.XPATH, "//input[@name='why-view'][@value='nearest']/..").click()
    wait(desk).until(
        lambda d: d.execute_script(
            "return [...document.querySelectorAll('#why .nearest img')].every((one) => one.naturalWidth)"
        )
    )
    yours, photos, framed = desk.execute_script(
        """const titles = (list, which = "img") => [...list.querySelectorAll(which)].map((image) => image.title);
        const yours = document.getElementById("why-nearest-yours");
        const rows = [...document.querySelectorAll("#why-nearest .nearest")];
        const both = [yours, ...rows].map((row) => titles(row, ".both img"));
        return [titles(yours), rows.map((row) => titles(row)), both];"""
    )
    assert [len(row) for row in [yours, *photos]] == [8] * 7
    assert framed[1:] == [[title for title in row if title in yours] for row in photos]
    assert framed[0] == [title for title in yours if any(title in row for row in photos)]
    assert any(framed)
    assert "By looks alone: rank" in looking.text(desk, "why-nearest")


def test_an_answer_that_comes_after_its_dialog_was_closed_is_not_shown(desk: Browser, server: Served) -> None:
    """Asks why one photo was found, then why all were. The pictures of both answers are decoded late."""
    looking.find(desk, server)
    run(desk, "hold_decoding", "why-sketch-image")
    desk.find_element(By.CSS_SELECTOR, "#results .photo").click()
    desk.find_element(By.ID, "viewer-why").click()
    wait(desk).until(lambda d: d.execute_script("return held.length") == 1)
    desk.find_element(By.ID, "why-close").click()
    desk.find_element(By.ID, "viewer-close").click()
    desk.find_element(By.ID, "why-open").click()
    wait(desk).until(lambda d: d.execute_script("return held.length") == 2)
    for number in (1, 0):
        run(desk, "release_decoding", number)
        assert desk.find_element(By.ID, "why-body").is_displayed()
        assert len(desk.find_elements(By.CSS_SELECTOR, "#why-photos li")) == 6
