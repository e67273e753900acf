"""The page in a real browser: its layout on small and large screens, light and dark, and for everybody."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import visibility_of_element_located

from tests.browser import DESKTOP, LAPTOP, Browser, Screen, draw, emulate, run, wait, wait_for_photos
from tests.pictures import strokes
from tests.requirements import needs_browser
from tests.service.looking import axe_complaints, check_suits_everybody, find, on_screen, text
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
        wait_for_photos(driver, lambda d: d.find_element(By.ID, "parts-undo").is_displayed())
        for said in ("20 of 23 photos, best first", "1,200 of 123,456 photos, newest first"):
            driver.execute_script("document.getElementById('status').textContent = arguments[0]", said)
            for screen in (PHONE, LAPTOP, LOW, DESKTOP, WIDE):
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


@pytest.mark.parametrize("screen", [SMALL, PHONE, LOW, WIDE], ids=lambda screen: screen.name)
def test_all_of_the_page_fits_the_screen_and_can_be_pressed_by_everybody(
    opened: Browser, server: Served, screen: Screen
) -> None:
    def check(name: str) -> None:
        assert run(driver, "covered", name) == []
        # On two screens, one of them dark: the others have the same elements.
        assert screen not in (LOW, PHONE) or axe_complaints(driver) == []

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
            # All that can be done with a photo is in sight.
            last, steps = (driver.find_element(By.CSS_SELECTOR, one).rect for one in ("#viewer-original", ".steps"))
            assert last["y"] + last["height"] <= steps["y"]
        driver.find_element(By.ID, "viewer-close").click()
        if screen.phone:
            driver.find_element(By.ID, "tools-open").click()
        driver.find_element(By.ID, "choose").click()
        for dark in (False, True):
            emulate(driver, screen, dark=dark)
            check_suits_everybody(driver, screen)
        # A ring shows the black pen on the dark ground.
        ring = "return getComputedStyle(document.querySelector('.swatch'), '::after').borderTopColor"
        assert driver.execute_script(ring) == "rgb(163, 164, 155)"
        check_shapes_fit(driver, screen)
