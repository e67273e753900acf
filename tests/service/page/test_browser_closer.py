"""The page in a real browser: "Which is closer?", for the one photo that somebody remembers."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser import DESKTOP, PHONE, Browser, Screen, draw, run, wait, wait_for_photos
from tests.pictures import strokes
from tests.requirements import needs_browser
from tests.service.looking import axe_complaints, check_quiet, names, on_screen, parts, searches, wait_for_search
from tests.service.served import Served

pytestmark = needs_browser


def asked(driver: Browser) -> dict[str, Any]:
    """What the page asks; see ``scripts/closer_shown.js``."""
    shown: dict[str, Any] = run(driver, "closer_shown")
    return shown


def find(driver: Browser, server: Served, screen: Screen = DESKTOP, hash_: str = "") -> None:
    driver.get(f"{server.url}/{hash_}")
    draw(driver, screen, strokes("star"))
    wait_for_photos(driver)
    wait(driver).until(lambda d: asked(d)["offered"])


def wait_for_question(driver: Browser, *others: list[str]) -> list[str]:
    """Wait until two photos are asked about that are none of these pairs."""
    wait(driver).until(lambda d: not (now := asked(d))["waits"] and now["question"] not in (None, *others))
    wait_for_photos(driver)
    question: list[str] = asked(driver)["question"]
    return question


def begin(driver: Browser) -> list[str]:
    driver.find_element(By.ID, "closer-open").click()
    return wait_for_question(driver)


def press(driver: Browser, name: str) -> None:
    driver.find_element(By.ID, f"closer-{name}").click()


def focus(driver: Browser) -> str:
    where: str = driver.execute_script("return document.activeElement.id")
    return where


def test_answers_are_parts_of_the_query_that_can_be_undone_removed_and_shared(desk: Browser, server: Served) -> None:
    find(desk, server)
    before = names(desk)
    first = begin(desk)
    assert searches(desk)[-1]["ask"] == ["true"]
    press(desk, "second")
    answer = ",".join(reversed(first))
    wait_for_search(desk, f"#closer={answer}")
    second = wait_for_question(desk, first)
    assert not set(first) & set(second)
    assert asked(desk)["said"].startswith("1 answer so far.")
    press(desk, "first")
    wait_for_search(desk, f"#closer={answer}&closer={','.join(second)}")
    wait_for_question(desk, first, second)
    assert searches(desk)[-1]["closer"] == [answer, ",".join(second)]
    shown = parts(desk)["parts"]
    assert len(shown) == 3
    assert all(" is closer than " in one for one in shown[1:])

    desk.find_element(By.ID, "parts-undo").click()
    wait_for_search(desk, f"#closer={answer}")
    assert wait_for_question(desk, first) == second
    press(desk, "done")
    wait(desk).until(lambda d: not asked(d)["shown"])
    wait_for_photos(desk)
    found = names(desk)
    # The drawing stays in the tab, so that the page finds the same.
    desk.refresh()
    wait(desk).until(lambda d: names(d) == found)
    assert not asked(desk)["shown"]
    desk.execute_script("document.querySelector('#parts .answer').click()")
    wait_for_search(desk, "")
    wait(desk).until(lambda d: names(d) == before)
    check_quiet(desk, server)


def test_a_question_that_helps_nobody_is_passed_over(desk: Browser, server: Served) -> None:
    find(desk, server)
    first = begin(desk)
    found = names(desk)
    press(desk, "skip")
    second = wait_for_question(desk, first)
    assert not set(first) & set(second)
    assert searches(desk)[-1]["skip"] == [",".join(first)]
    assert parts(desk)["hash"] == ""
    assert names(desk) == found
    # Who begins anew may be asked the same again.
    press(desk, "done")
    wait(desk).until(lambda d: not asked(d)["shown"])
    wait_for_photos(desk)
    assert begin(desk) == first
    check_quiet(desk, server)


def test_it_is_asked_until_no_two_photos_are_left(desk: Browser, server: Served) -> None:
    find(desk, server, hash_="#folder=gr%C3%B6%C3%9Fe")
    questions = [begin(desk)]
    while asked(desk)["question"]:
        press(desk, "first")
        wait(desk).until(
            lambda d: (now := asked(d))["said"] == "There is nothing more to ask." or now["question"] not in questions
        )
        wait(desk).until(lambda d: asked(d)["question"] is None or not asked(d)["waits"])
        questions.append(asked(desk)["question"])
    assert questions.pop() is None
    photos = [photo for question in questions for photo in question]
    # The folder has 8 photos.
    assert len(set(photos)) == len(photos) == 8
    press(desk, "done")
    wait(desk).until(lambda d: not asked(d)["shown"])
    check_quiet(desk, server)


def test_the_keyboard_is_enough(desk: Browser, server: Served) -> None:
    find(desk, server)
    desk.execute_script("document.getElementById('closer-open').focus()")
    ActionChains(desk).send_keys(Keys.ENTER).perform()
    first = wait_for_question(desk)
    wait(desk).until(lambda d: focus(d) == "closer-first")
    ActionChains(desk).send_keys(Keys.TAB, Keys.ENTER).perform()
    second = wait_for_question(desk, first)
    assert parts(desk)["hash"] == f"#closer={first[1]},{first[0]}"
    assert focus(desk) == "closer-second"
    ActionChains(desk).send_keys(Keys.TAB, Keys.ENTER).perform()
    wait_for_question(desk, first, second)
    ActionChains(desk).send_keys(Keys.TAB, Keys.ENTER).perform()
    wait(desk).until(lambda d: not asked(d)["shown"])
    assert focus(desk) == "closer-open"
    wait_for_photos(desk)
    check_quiet(desk, server)


def test_a_liked_photo_ends_it_and_undo_brings_the_answers_back(desk: Browser, server: Served) -> None:
    find(desk, server)
    first = begin(desk)
    press(desk, "first")
    wait_for_question(desk, first)
    desk.execute_script("document.querySelector('#results .small.like').click()")
    wait(desk).until(lambda d: parts(d)["hash"].startswith("#like="))
    wait_for_photos(desk)
    assert not asked(desk)["shown"]
    assert not asked(desk)["offered"]
    assert "closer" not in searches(desk)[-1]
    desk.find_element(By.ID, "parts-undo").click()
    wait_for_search(desk, f"#closer={','.join(first)}")
    wait(desk).until(lambda d: asked(d)["offered"])
    check_quiet(desk, server)


def test_without_a_drawing_nothing_is_asked(desk: Browser, server: Served) -> None:
    find(desk, server)
    begin(desk)
    desk.find_element(By.ID, "clear").click()
    wait(desk).until(lambda d: not asked(d)["shown"] and not asked(d)["offered"])
    desk.get(f"{server.url}/#like=4&closer=1,2")
    desk.refresh()
    wait_for_photos(desk)
    assert not asked(desk)["offered"]
    assert len(parts(desk)["parts"]) == 1
    check_quiet(desk, server)


@pytest.mark.parametrize(("screen", "dark"), [(DESKTOP, False), (PHONE, True)], ids=["desktop", "dark-phone"])
def test_everybody_can_say_which_is_closer(opened: Browser, server: Served, screen: Screen, dark: bool) -> None:
    with on_screen(opened, screen, dark=dark) as driver:
        find(driver, server, screen)
        first = begin(driver)
        press(driver, "first")
        wait_for_question(driver, first)
        assert axe_complaints(driver) == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= screen.width
