"""The page in a real browser: a word as part of the query, and words guessed for a drawing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import model
from indexer import build
from service.settings import Settings
from tests.browser import PHONE, Browser, wait, wait_for_photos
from tests.indexer.clip_models import READING, saved_clip
from tests.pictures import encoded
from tests.requirements import needs_browser
from tests.service.looking import (
    axe_complaints,
    check_quiet,
    names,
    on_screen,
    parts,
    searches,
    text,
    wait_for_notice,
    wait_for_search,
)
from tests.service.served import Served, served
from tests.service.small_gallery import CLUSTERS, draw_sketch
from tests.service.wordy import wordy

pytestmark = needs_browser

WORDS = (("sofa", "couch"), ("dog", "hound"), ("cat",), ("sea lion",), ("dogsled",), ("tuba",))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, gallery: Path, settings: Settings) -> Iterator[Served]:
    """A server whose network has a vocabulary."""
    with served(wordy(settings, gallery, tmp_path_factory.mktemp("words"), WORDS)) as running:
        yield running


@pytest.fixture
def drawn(tmp_path: Path) -> str:
    """The path of a drawing."""
    file = tmp_path / "drawn.png"
    file.write_bytes(encoded(draw_sketch()))
    return str(file)


def guessed(driver: Browser) -> list[str]:
    """The words that the page offers for the drawing."""
    shown: list[str] = driver.execute_script(
        "return [...document.querySelectorAll('#guesses button')].map((button) => button.firstChild.textContent)"
    )
    return shown


def completions(driver: Browser) -> list[str]:
    found: list[str] = driver.execute_script(
        "return [...document.querySelectorAll('#words option')].map((option) => option.value)"
    )
    return found


def test_a_word_is_completed_and_enough_to_search_with(desk: Browser, known: Served) -> None:
    desk.get(known.url)
    wait(desk).until(lambda d: d.find_element(By.ID, "word").is_displayed())
    desk.find_element(By.ID, "word").send_keys("do")
    wait(desk).until(lambda d: completions(d) == ["dog", "dogsled"])
    desk.find_element(By.ID, "word").send_keys("g", Keys.ENTER)
    wait_for_search(desk, "#text=dog")
    assert parts(desk)["parts"] == ["Remove: The word dog"]
    assert searches(desk)[-1]["text"] == ["dog"]
    assert not desk.find_element(By.ID, "why-open").is_displayed()
    desk.refresh()
    wait_for_photos(desk)
    assert parts(desk)["parts"] == ["Remove: The word dog"]
    desk.find_element(By.CSS_SELECTOR, "#parts .word").click()
    wait_for_notice(desk, "What are you looking for?")
    desk.find_element(By.ID, "parts-undo").click()
    wait_for_search(desk, "#text=dog")
    check_quiet(desk, known)


def test_where_clip_reads_words_the_field_takes_any_text(
    desk: Browser, tmp_path: Path, gallery: Path, settings: Settings, weights: Path
) -> None:
    clip = saved_clip(tmp_path / "reading-clip", READING)
    build([gallery], tmp_path / "index", model.load(weights), clusters=CLUSTERS, embedder=f"clip:{clip}")
    with served(settings, index=tmp_path / "index") as server:
        desk.get(server.url)
        wait(desk).until(lambda d: d.find_element(By.ID, "word").is_displayed())
        desk.find_element(By.ID, "word").send_keys("a dog on a beach", Keys.ENTER)
        wait_for_search(desk, "#text=a%20dog%20on%20a%20beach")
        wait_for_photos(desk)
        assert parts(desk)["parts"] == ["Remove: The word a dog on a beach"]


def test_a_word_that_is_not_known_is_told_with_those_that_are_near(desk: Browser, known: Served) -> None:
    desk.get(known.url)
    wait(desk).until(lambda d: d.find_element(By.ID, "word").is_displayed())
    desk.find_element(By.ID, "word").send_keys("dogg", Keys.ENTER)
    wait_for_notice(desk, "Not a word that it knows")
    assert "dog" in text(desk, "notice-text")
    assert text(desk, "notice-text").endswith("To go on without a word, remove it above.")
    desk.find_element(By.CSS_SELECTOR, "#parts .word").click()
    wait_for_notice(desk, "What are you looking for?")


def test_a_word_that_nothing_looks_like_is_told_above_the_photos_that_come_nearest(
    desk: Browser, known: Served
) -> None:
    desk.get(f"{known.url}/#text=tuba")
    wait(desk).until(lambda d: text(d, "word-remark") == "Nothing here looks much like “tuba”. These come nearest.")
    wait_for_photos(desk)
    assert names(desk)
    desk.find_element(By.ID, "word").send_keys("cat", Keys.ENTER)
    wait_for_search(desk, "#text=cat")
    wait(desk).until(lambda d: text(d, "word-remark") == "")
    desk.back()
    wait(desk).until(lambda d: "tuba" in text(d, "word-remark"))
    desk.find_element(By.CSS_SELECTOR, "#parts .word").click()
    wait_for_notice(desk, "What are you looking for?")
    assert text(desk, "word-remark") == ""
    check_quiet(desk, known)


def test_a_word_guessed_for_a_drawing_is_added_by_a_press(desk: Browser, known: Served, drawn: str) -> None:
    desk.get(known.url)
    desk.find_element(By.ID, "file").send_keys(drawn)
    wait(desk).until(guessed)
    wait_for_photos(desk)
    word = guessed(desk)[0]
    desk.execute_script("document.querySelector('#guesses button').click()")
    wait(desk).until(lambda d: parts(d)["parts"] == ["Remove the drawing", f"Remove: The word {word}"])
    wait(desk).until(lambda d: word not in guessed(d))
    wait_for_photos(desk)
    desk.find_element(By.CSS_SELECTOR, "#parts .word").click()
    wait(desk).until(lambda d: guessed(d)[:1] == [word])
    desk.find_element(By.ID, "clear").click()
    wait_for_notice(desk, "What are you looking for?")
    assert guessed(desk) == []
    check_quiet(desk, known)


def test_without_a_vocabulary_there_is_no_field_for_words(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    wait(desk).until(lambda d: d.find_elements(By.CSS_SELECTOR, "#count option"))
    assert not desk.find_element(By.ID, "word").is_displayed()


def test_everybody_can_use_words(opened: Browser, known: Served, drawn: str) -> None:
    with on_screen(opened, PHONE, dark=False) as driver:
        driver.get(f"{known.url}/#text=sofa")
        wait_for_photos(driver)
        driver.find_element(By.ID, "file").send_keys(drawn)
        wait(driver).until(guessed)
        wait_for_photos(driver)
        assert axe_complaints(driver) == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= PHONE.width
