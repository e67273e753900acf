"""The page in a real browser: its layout on small and large screens, light and dark."""

import pytest
from selenium.webdriver.common.by import By

from tests.browser import DESKTOP, LAPTOP, Browser, Screen, emulate, run, wait, wait_for_photos
from tests.requirements import needs_browser
from tests.service.looking import check_suits_everybody, find, on_screen
from tests.service.served import Served

pytestmark = needs_browser

SMALL = Screen("small phone", 320, 640, ratio=2.0, phone=True)
PHONE = Screen("phone", 390, 844, ratio=2.0, phone=True)
LOW = Screen("low laptop", 1366, 707)
WIDE = Screen("wide", 1920, 1000)


def test_the_line_above_the_photos_is_never_cut(opened: Browser, server: Served) -> None:
    with on_screen(opened, PHONE) as driver:
        find(driver, server, screen=PHONE)
        driver.execute_script("document.querySelector('#results .small.like').click()")
        wait(driver).until(lambda d: d.find_element(By.ID, "parts-undo").is_displayed())
        wait_for_photos(driver)
        for text in ("20 of 23 photos, best first", "1,200 of 123,456 photos, newest first"):
            driver.execute_script("document.getElementById('status').textContent = arguments[0]", text)
            for screen in (PHONE, LAPTOP, LOW, DESKTOP, WIDE):
                emulate(driver, screen)
                assert run(driver, "cut", "#bar > *") == [], screen.name
                assert driver.execute_script("return document.getElementById('bar').clientHeight") < 100, screen.name


@pytest.mark.parametrize("screen", [SMALL, LOW, WIDE], ids=lambda screen: screen.name)
def test_the_page_fits_small_and_large_screens_in_light_and_dark(
    opened: Browser, server: Served, screen: Screen
) -> None:
    with on_screen(opened, screen) as driver:
        find(driver, server, screen=screen)
        if not screen.phone:
            # All that can be done with a photo is in sight.
            driver.find_element(By.CSS_SELECTOR, "#results .photo").click()
            last, steps = (driver.find_element(By.CSS_SELECTOR, one).rect for one in ("#viewer-original", ".steps"))
            assert last["y"] + last["height"] <= steps["y"]
            driver.find_element(By.ID, "viewer-close").click()
        driver.find_element(By.ID, "choose").click()
        for dark in (False, True):
            emulate(driver, screen, dark=dark)
            check_suits_everybody(driver, screen)
        # A ring shows the black pen on the dark ground.
        ring = "return getComputedStyle(document.querySelector('.swatch'), '::after').borderTopColor"
        assert driver.execute_script(ring) == "rgb(163, 164, 155)"
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
