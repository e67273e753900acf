"""The page in a real browser: its history, several tabs, and what comes from other pages."""

import base64
from urllib.parse import quote

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.browser import DESKTOP, Browser, draw, run, wait, wait_for_photos
from tests.pictures import odd_file, strokes
from tests.requirements import needs_browser
from tests.service.looking import expect_complaints, find, paper, text, wait_for_notice
from tests.service.served import Served

pytestmark = needs_browser


def find_and_open(driver: Browser, server: Served) -> None:
    """Search, and open the first photo."""
    find(driver, server)
    driver.find_element(By.CSS_SELECTOR, "#results .photo").click()
    wait_until_open(driver, "viewer")


def is_open(driver: Browser, dialog: str) -> bool:
    return driver.execute_script("return document.getElementById(arguments[0]).open", dialog)


def wait_until_open(driver: Browser, dialog: str) -> None:
    wait(driver).until(lambda d: is_open(d, dialog))


def wait_until_closed(driver: Browser, dialog: str) -> None:
    wait(driver).until(lambda d: not is_open(d, dialog))


def dialogs_in_history(driver: Browser) -> int:
    return driver.execute_script("return history.state?.dialogs ?? 0")


def wait_for_the_page_s_own_entry(driver: Browser) -> None:
    wait(driver).until(lambda d: dialogs_in_history(d) == 0)


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


def test_an_address_that_is_dropped_or_pasted_is_reported_not_to_be_an_image(desk: Browser, server: Served) -> None:
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


_SVG = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 90 90'>"
    "<path d='M9 80L45 9L81 80Z' fill='none' stroke='black' stroke-width='3'/></svg>"
)


@pytest.mark.parametrize(
    "code",
    [
        _SVG,
        f'<?xml version="1.0" encoding="UTF-8"?>\n<!-- by a program -->\n{_SVG}',
        f"data:image/svg+xml,{quote(_SVG)}",
        f"data:image/png;base64,{base64.b64encode(odd_file('white on nothing.png')).decode()}",
    ],
    ids=["code", "a file", "a data URL", "base64"],
)
def test_the_code_of_an_image_is_drawn_when_it_is_pasted_or_dropped(desk: Browser, server: Served, code: str) -> None:
    for script in ("paste_text", *(["drop_address"] if code.startswith("data:") else [])):
        desk.get(server.url)
        wait_for_notice(desk, "What are you looking for?")
        run(desk, script, code)
        wait_for_photos(desk)
        assert 0.005 < (paper(desk) != paper(desk)[0, 0]).mean() < 0.5
        desk.find_element(By.ID, "clear").click()


def test_code_that_is_no_image_is_reported(desk: Browser, server: Served) -> None:
    for code in ("data:image/png;base64,%%%", "<svg><path d='M0 0'", "data:image/gif,none"):
        desk.get(server.url)
        wait_for_notice(desk, "What are you looking for?")
        run(desk, "paste_text", code)
        wait_for_notice(desk, "That did not work")
        desk.find_element(By.ID, "clear").click()
        wait_for_notice(desk, "What are you looking for?")
    expect_complaints(desk, "Failed to load resource")
