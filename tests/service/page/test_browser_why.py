import base64
import io
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.color import Color

from tests import browser
from tests.browser import DESKTOP, Browser, Screen, draw, run, wait, wait_for_photos
from tests.pictures import odd_file, strokes
from tests.requirements import needs_browser
from tests.service import looking
from tests.service.looking import expect_complaints, find, paper, text, wait_for_notice
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
    return driver.execute_script(
        "return [...document.querySelectorAll('#why .layers canvas')].map((canvas) => canvas.toDataURL())"
    )


def pixels(url: str) -> NDArray[np.uint8]:
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
    desk.find_element(By.CSS_SELECTOR, "#results .photo").click()
    name = looking.text(desk, "viewer-title")
    desk.find_element(By.ID, "viewer-why").click()
    wait(desk).until(lambda d: looking.text(d, "why-title") == f"Why {name}?")
    wait(desk).until(lambda d: len(d.find_elements(By.CSS_SELECTOR, "#why-photos li")) == 1)
    desk.find_element(By.ID, "why-close").click()
    assert desk.find_element(By.ID, "viewer").is_displayed()


def test_only_what_is_drawn_is_a_part_of_a_picture(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    # A stroke from the middle to the right, and a dot, on bare paper: three of the ninths.
    ninths = [["The top left", [0], 0], ["The middle", [14, 15, 20, 21], 4], ["The right", [16, 17, 22, 23], 5]]
    assert run(desk, "image_parts") == ninths


def test_photos_are_compared_with_the_liked_photo_that_is_chosen(desk: Browser, server: Served) -> None:
    desk.get(f"{server.url}/#like=4,9")
    wait_for_photos(desk)
    ask_why(desk)
    assert "the photo you like" in looking.text(desk, "why-lead")
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


def find_and_open(driver: Browser, server: Served) -> None:
    find(driver, server)
    driver.find_element(By.CSS_SELECTOR, "#results .photo").click()
    wait_until_open(driver, "viewer")


def is_open(driver: Browser, dialog: str) -> bool:
    return driver.execute_script("return document.getElementById(arguments[0]).open", dialog)


def wait_until_open(driver: Browser, dialog: str) -> None:
    wait(driver).until(lambda d: is_open(d, dialog))


def wait_until_closed(driver: Browser, dialog: str) -> None:
    wait(driver).until(lambda d: not is_open(d, dialog))


def wait_for_the_page_s_own_entry(driver: Browser) -> None:
    wait(driver).until(lambda d: d.execute_script("return (history.state?.dialogs ?? 0) === 0"))


def test_back_closes_the_uppermost_dialog_and_forward_opens_it_again(desk: Browser, server: Served) -> None:
    find_and_open(desk, server)
    name = text(desk, "viewer-title")
    drawn = paper(desk)
    desk.back()
    wait_until_closed(desk, "viewer")
    assert desk.current_url == f"{server.url}/"
    assert np.array_equal(paper(desk), drawn)
    desk.forward()
    wait_until_open(desk, "viewer")
    assert text(desk, "viewer-title") == name
    desk.find_element(By.ID, "viewer-why").click()
    wait(desk).until(lambda d: d.find_element(By.ID, "why-body").is_displayed())
    desk.back()
    wait_until_closed(desk, "why")
    assert is_open(desk, "viewer")
    desk.back()
    wait_until_closed(desk, "viewer")
    # After a reload the photo is closed, and so is its entry: there is none that Forward could open.
    desk.forward()
    wait_until_open(desk, "viewer")
    desk.refresh()
    wait_for_photos(desk)
    for _ in range(2):
        wait_for_the_page_s_own_entry(desk)
        assert not is_open(desk, "viewer")
        desk.forward()


def test_six_queries_are_walked_back_and_forward(desk: Browser, server: Served) -> None:
    """A drawing, with a liked photo; a photo, which begins anew, with a liked one; that alone, and another drawing."""
    find(desk, server, "house")
    seen = [paper(desk)]

    def ask(element: WebElement, *, other: bool = True) -> None:
        element.click()
        if other:
            wait(desk).until(lambda d: not np.array_equal(paper(d), seen[-1]))
        wait_for_photos(desk)
        seen.append(paper(desk))

    def return_to(step: int) -> None:
        wait(desk).until(
            lambda d: np.array_equal(paper(d), seen[step]) and ("like=" in d.current_url) == (step in (1, 3, 4))
        )
        wait_for_photos(desk)

    like = "#results .tile:hover .like, #results .tile .like"

    def like_the_first() -> None:
        ActionChains(desk).move_to_element(desk.find_element(By.CSS_SELECTOR, "#results .photo")).perform()
        ask(desk.find_element(By.CSS_SELECTOR, like), other=False)

    like_the_first()
    desk.find_element(By.CSS_SELECTOR, "#results .photo").click()
    ask(desk.find_element(By.ID, "viewer-search"))
    assert "like=" not in desk.current_url
    like_the_first()
    ask(desk.find_element(By.ID, "parts-drawing"))
    desk.find_element(By.ID, "clear").click()
    draw(desk, DESKTOP, strokes("star"))
    wait_for_photos(desk)
    seen.append(paper(desk))
    for step in (4, 3, 2, 1, 0):
        desk.back()
        return_to(step)
    desk.refresh()
    return_to(0)
    for step in (1, 2, 3, 4, 5):
        desk.forward()
        return_to(step)


def test_a_photo_that_was_closed_leaves_nothing_to_go_back_to(desk: Browser, server: Served) -> None:
    before = desk.current_url
    find_and_open(desk, server)
    for close in (Keys.ESCAPE, None):
        if close:
            ActionChains(desk).send_keys(close).perform()
        else:
            desk.find_element(By.CSS_SELECTOR, "#results .photo").click()
            desk.find_element(By.ID, "viewer-close").click()
        wait_until_closed(desk, "viewer")
        wait_for_the_page_s_own_entry(desk)
    desk.back()
    wait(desk).until(lambda d: d.current_url == before)


def test_an_address_or_code_that_is_no_image_is_reported(desk: Browser, server: Served) -> None:
    address = "https://example.org/cat.jpg"
    for script in ("drop_address", "paste_text"):
        desk.get(server.url)
        wait_for_notice(desk, "What are you looking for?")
        assert run(desk, script, address) in (True, None)
        wait_for_notice(desk, "That is an address, not an image")
        assert "Save the image" in text(desk, "notice-text")
        draw(desk, DESKTOP, strokes("star"))
        wait_for_photos(desk)
        assert not desk.find_element(By.ID, "notice").is_displayed()
        desk.find_element(By.ID, "clear").click()
    # What Excalidraw and tldraw copy.
    for code in ('{"type":"excalidraw/clipboard","elements":[{"type":"freedraw"}]}', "<div data-tldraw>N4Ig</div>"):
        wait_for_notice(desk, "What are you looking for?")
        run(desk, "paste_text", code, "text/html" if code.startswith("<") else "text/plain")
        wait_for_notice(desk, "That is text, not an image")
        assert "PNG or an SVG" in text(desk, "notice-text")
        desk.refresh()
    for code in ("data:image/png;base64,%%%", "<svg><path d='M0 0'", "data:image/gif,none"):
        wait_for_notice(desk, "What are you looking for?")
        run(desk, "paste_text", code)
        wait_for_notice(desk, "That did not work")
        desk.find_element(By.ID, "clear").click()
    expect_complaints(desk, "Failed to load resource")


_SVG = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 90 90'>"
    "<path d='M9 80L45 9L81 80Z' fill='none' stroke='black' stroke-width='3'/></svg>"
)


def test_the_code_of_an_image_is_drawn_when_it_is_pasted_or_dropped(desk: Browser, server: Served) -> None:
    whole = f'<?xml version="1.0" encoding="UTF-8"?>\n<!-- by a program -->\n{_SVG}'
    encoded = base64.b64encode(odd_file("white on nothing.png")).decode()
    urls = f"data:image/svg+xml,{quote(_SVG)}", f"data:image/png;base64,{encoded}"
    desk.get(server.url)
    pasted, dropped = [("paste_text", code) for code in (_SVG, whole, *urls)], [("drop_address", url) for url in urls]
    # As browsers and programs copy an image with its HTML.
    copied = [("paste_text", f"<meta charset='utf-8'><p>A <img alt='' src=\"{url}\"></p>", "text/html") for url in urls]
    for script, *code in pasted + dropped + copied:
        wait_for_notice(desk, "What are you looking for?")
        run(desk, script, *code)
        wait_for_photos(desk)
        assert 0.005 < (paper(desk) != paper(desk)[0, 0]).mean() < 0.5
        desk.find_element(By.ID, "clear").click()
