import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from sketch_search import model
from sketch_search.indexer import BuildRequest, build
from sketch_search.service.search import searcher as shown
from sketch_search.service.settings import Settings
from tests.browser import DESKTOP, LAPTOP, PHONE, Browser, Screen, draw, run, wait, wait_for_photos
from tests.pictures import encoded, strokes
from tests.requirements import needs_browser
from tests.service.looking import (
    axe_complaints,
    check_suits_everybody,
    choose,
    expect_complaints,
    find,
    names,
    on_screen,
    paper,
    parts,
    searches,
    served_to,
    text,
    wait_for_notice,
    wait_for_search,
)
from tests.service.served import Served, served, wordy
from tests.service.small_gallery import PHOTOS, draw_photo, save_copy

pytestmark = needs_browser


def photo(driver: Browser, place: int) -> tuple[str, str]:
    name, source = driver.execute_script(
        "const tile = document.querySelectorAll('#results .tile')[arguments[0]];"
        "return [tile.querySelector('.name').textContent, tile.querySelector('img').dataset.path];",
        place,
    )
    # Behind the id stands the hash of its content.
    return name, source.partition("/thumbnails/")[2].split("/")[0]


def press(driver: Browser, deed: str, place: int) -> None:
    driver.execute_script(
        "document.querySelectorAll('#results .tile')[arguments[0]].querySelector(`.small.${arguments[1]}`).focus()",
        place,
        deed,
    )
    ActionChains(driver).send_keys(Keys.ENTER).perform()


def test_a_liked_photo_becomes_a_part_and_an_unliked_one_leaves(desk: Browser, server: Served) -> None:
    find(desk, server)
    before = names(desk)
    assert not parts(desk)["shown"]
    liked, liked_id = photo(desk, 5)
    press(desk, "like", 5)
    wait_for_search(desk, f"#like={liked_id}")
    wait(desk).until(lambda d: liked not in names(d))
    ranks = desk.execute_script(
        "return [...document.querySelectorAll('#results .rank')].map((r) => Number(r.textContent))"
    )
    assert ranks == [*range(1, len(ranks) + 1)]
    assert parts(desk)["parts"] == [f"Remove: More like {liked}", "Remove the drawing"]

    unliked, unliked_id = photo(desk, 3)
    press(desk, "unlike", 3)
    wait_for_search(desk, f"#like={liked_id}&unlike={unliked_id}")
    wait(desk).until(lambda d: unliked not in names(d))
    assert parts(desk)["parts"][1:] == ["Remove the drawing", f"Remove: Not {unliked}"]
    last = searches(desk)[-1]
    assert (last["like"], last["unlike"]) == ([liked_id], [unliked_id])
    hidden = int(text(desk, "parts-hidden").removesuffix(" hidden"))
    assert 1 <= hidden < len(before)
    assert len(names(desk)) >= len(before) - hidden - 1
    assert desk.find_element(By.ID, "parts-undo").is_displayed()
    for part, left in (("unlike", f"#like={liked_id}"), ("like", "")):
        desk.find_element(By.CSS_SELECTOR, f"#parts .{part}").click()
        wait_for_search(desk, left)
    wait(desk).until(lambda d: names(d) == before)
    for back in (f"#like={liked_id}", f"#like={liked_id}&unlike={unliked_id}", f"#like={liked_id}", ""):
        desk.find_element(By.ID, "parts-undo").click()
        wait_for_search(desk, back)
    assert not parts(desk)["undo"]


def test_what_looks_like_an_unwanted_photo_and_ranks_behind_it_can_be_hidden_too(desk: Browser, server: Served) -> None:
    find(desk, server)
    before = names(desk)
    press(desk, "unlike", 2)
    wait_for_photos(desk, lambda d: before[2] not in names(d))
    (others,) = desk.find_elements(By.CSS_SELECTOR, "#parts-list .quiet")
    number, hidden = int(others.text.split()[1]), int(text(desk, "parts-hidden").removesuffix(" hidden"))
    others.click()
    wait_for_photos(desk, lambda d: text(d, "parts-hidden") == f"{hidden + number} hidden")
    assert set(before[:2]) <= set(names(desk))


def test_a_photo_of_an_address_that_is_gone_is_reported_and_can_be_taken_out(desk: Browser, server: Served) -> None:
    desk.get(f"{server.url}/#like=4,987654")
    wait_for_notice(desk, "A photo is gone")
    assert "987654" in text(desk, "notice-text")
    wait(desk).until(lambda d: text(d, "parts-first").count("photo 987654") == 1)
    desk.execute_script("document.querySelectorAll('#parts .like')[1].click()")
    wait_for_search(desk, "#like=4")
    # Of the search, and of a thumbnail that may come after it.
    expect_complaints(desk, "404")
    wait(desk).until(lambda d: len(names(d)) > 1)
    desk.execute_script("document.querySelector('#parts .like').click()")
    wait_for_notice(desk, "What are you looking for?")


# The first photo is there three times, and goes by the first of its names.
IN_FOLDER = ["again.png", *(f"p{seed:02}.png" for seed in range(3, PHOTOS, 3))]
FOLDER_HASH = "#folder=gr%C3%B6%C3%9Fe"


def choose_file(driver: Browser, file: Path) -> None:
    driver.find_element(By.ID, "file").send_keys(str(file))


def kind(driver: Browser) -> str | None:
    return driver.execute_script(
        "const asked = document.getElementById('as');"
        "return asked.checkVisibility() ? asked.querySelector(':checked').value : null;"
    )


def open_filter(driver: Browser) -> None:
    driver.find_element(By.CSS_SELECTOR, "#filter summary").click()
    # It knows the folders a moment after it was opened.
    wait(driver).until(lambda d: d.find_elements(By.CSS_SELECTOR, "#filter-folders .name"))


def filter_by(driver: Browser, **days: str) -> None:
    """Choose these days in the open filter: how a day is typed depends on the browser's language."""
    driver.execute_script(
        "for (const [name, value] of Object.entries(arguments[0])) {"
        "  const field = document.getElementById(`filter-${name}`);"
        "  field.value = value;"
        "  field.dispatchEvent(new Event('change'));"
        "}",
        days,
    )


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.png"
    file.write_bytes(encoded(draw_photo(5)))
    return file


def test_an_image_is_searched_with_as_the_kind_that_is_chosen(desk: Browser, server: Served, mine: Path) -> None:
    desk.get(server.url)
    choose_file(desk, mine)
    wait_for_photos(desk, lambda d: names(d)[:1] == ["p05.png"])
    assert kind(desk) == "photo"
    assert searches(desk)[-1]["kind"] == ["photo"]
    desk.find_element(By.XPATH, "//input[@name='as'][@value='sketch']/..").click()
    wait_for_photos(desk, lambda d: kind(d) == "sketch")
    wait(desk).until(lambda d: d.find_element(By.ID, "why-open").is_displayed())
    desk.refresh()
    wait_for_photos(desk)
    assert kind(desk) == "sketch"
    desk.find_element(By.XPATH, "//input[@name='as'][@value='photo']/..").click()
    wait_for_photos(desk, lambda d: names(d)[:1] == ["p05.png"])
    press(desk, "like", 1)
    wait_for_photos(desk, lambda d: len(parts(d)["parts"]) == 2)
    assert parts(desk)["parts"][-1] == "Remove the photo"
    assert {"kind", "like"} <= searches(desk)[-1].keys()
    desk.find_element(By.ID, "parts-drawing").click()
    wait(desk).until(lambda d: len(parts(d)["parts"]) == 1)
    assert kind(desk) is None
    asked = wait(desk).until(searches)
    wait_for_photos(desk)
    assert asked[-1].keys() & {"kind", "like"} == {"like"}


def test_a_camera_s_picture_of_many_tones_is_a_photo_on_white(desk: Browser, server: Served, tmp_path: Path) -> None:
    # A disc in which hue and brightness change, as a bird before the sky.
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    disc = np.stack([(x + 0.6) * 212, (y + 0.6) * 212, (1.2 - x - y) * 106], axis=-1)
    pixels = np.where((np.hypot(x, y) < 0.6)[..., None], disc, 255).clip(0, 255).astype(np.uint8)
    # A drawing on striped paper in a shadow.
    y, x = np.mgrid[-1:1:384j, -1:1:384j]
    striped = np.full((384, 384, 3), 232.0)
    striped.reshape(16, 24, 384, 3)[:, :2] -= (40, 26, 0)
    ring = np.abs(np.hypot(x, y) - 0.6) < 0.015
    drawn = np.where(ring[..., None], 40, striped) * (0.9 - 0.13 * x[..., None])
    page = drawn.astype(np.uint8)
    desk.get(server.url)
    for name, picture, expected in (
        ("bird.jpg", pixels, "photo"),
        ("bird.png", pixels, "sketch"),
        ("page.jpg", page, "sketch"),
    ):
        Image.fromarray(picture).save(tmp_path / name, quality=95)
        choose_file(desk, tmp_path / name)
        wait_for_photos(desk, partial(counts_as, expected=expected))
        draw(desk, DESKTOP, [[(0, 0)]])
        wait_for_photos(desk)
        assert (kind(desk), searches(desk)[-1].get("kind", ["sketch"])) == (expected, [expected])


def counts_as(driver: Browser, expected: str) -> bool:
    return kind(driver) == expected


def has_held(driver: Browser, count: int) -> bool:
    return driver.execute_script("return held.length === arguments[0]", count)


def test_an_image_of_a_drawing_is_opened_searched_and_drawn_over(desk: Browser, server: Served, drawn: Path) -> None:
    desk.get(server.url)
    run(desk, "hold_decoding", "")
    choose_file(desk, drawn)
    # It is decoded, and again as the page keeps it.
    for number in (0, 1):
        wait(desk).until(partial(has_held, count=number + 1))
        assert text(desk, "opening") == "Opening the image…"
        run(desk, "release_decoding", number)
    wait_for_photos(desk)
    assert text(desk, "opening") == ""
    assert kind(desk) == "sketch"
    assert "kind" not in searches(desk)[-1]
    before = paper(desk)
    draw(desk, DESKTOP, [[(-0.9, -0.95), (0.9, -0.95)]])
    wait_for_photos(desk)
    assert (kind(desk), "kind" in searches(desk)[-1]) == ("sketch", False)
    shown = paper(desk)
    desk.refresh()
    wait_for_photos(desk, lambda d: np.array_equal(paper(d), shown))
    desk.find_element(By.ID, "undo").click()
    wait_for_photos(desk, lambda d: kind(d) == "sketch" and np.array_equal(paper(d), before))


def test_photos_are_filtered_by_days_beside_liked_ones(desk: Browser, server: Served) -> None:
    desk.get(f"{server.url}/#like=4")
    wait_for_photos(desk)
    found = names(desk)
    open_filter(desk)
    filter_by(desk, after="2001-02-03")
    wait_for_search(desk, "#like=4&after=2001-02-03")
    assert parts(desk)["parts"][:-1] == ["Remove: From 3 February 2001"]
    assert names(desk) == found
    day = desk.find_element(By.ID, "filter-after")
    day.send_keys("1215")
    assert parts(desk)["hash"] == "#like=4&after=2001-02-03"
    day.send_keys(Keys.ENTER)
    wait_for_search(desk, "#like=4&after=2001-12-15")
    desk.back()
    wait_for_search(desk, "#like=4&after=2001-02-03")
    filter_by(desk, before="2001-02-04")
    wait_for_notice(desk, "No photos match this filter")
    assert names(desk) == []
    assert parts(desk)["hash"] == "#like=4&after=2001-02-03&before=2001-02-04"
    assert parts(desk)["parts"][:-1] == ["Remove: 3 February 2001 to 4 February 2001"]
    # An end that is moved beyond the other one takes it along.
    filter_by(desk, after="2003-05-06")
    wait(desk).until(lambda d: parts(d)["hash"] == "#like=4&after=2003-05-06&before=2003-05-06")
    filter_by(desk, before="2001-02-03")
    wait(desk).until(lambda d: parts(d)["hash"] == "#like=4&after=2001-02-03&before=2001-02-03")
    filter_by(desk, before="")
    wait_for_search(desk, "#like=4&after=2001-02-03")
    wait(desk).until(lambda d: names(d) == found)


def test_folders_and_times_filter(desk: Browser, settings: Settings, tmp_path: Path, matcher: model.Matcher) -> None:
    days = {"2021/snow": (2021, 1, 5), "2021/town": (2021, 7, 3), "garden": (2022, 7, 9), ".": (2020, 7, 9)}
    for number, (folder, day) in enumerate(days.items()):
        file = tmp_path / "photos" / folder / f"{number}.png"
        save_copy(file, number, 0)
        noon = datetime(*day, 12).timestamp()
        os.utime(file, (noon, noon))
    build(tmp_path / "index", BuildRequest([tmp_path / "photos"]), matcher)

    def press(label: str, hash_: str) -> None:
        # In one step: they are drawn anew meanwhile.
        script = "const one = document.querySelector(arguments[0]); one?.click(); return one !== null"
        wait(desk).until(lambda d: d.execute_script(script, f"#filter :is([aria-label='{label}'], [title='{label}'])"))
        wait_for_search(desk, hash_)

    def wait_for_bars(*last: str) -> None:
        """Wait until these are the last ones: they come after the photos."""
        script = "return [...document.querySelectorAll('.bars button')].map((b) => b.innerText)"
        wait(desk).until(lambda d: d.execute_script(script)[-len(last) :] == [*last])

    with served_to(desk, settings, index=tmp_path / "index") as server:
        desk.get(server.url)
        wait(desk).until(lambda d: text(d, "about-open") == "4 photos")
        open_filter(desk)
        assert text(desk, "filter-folders").split("\n") == ["In no subfolder", "1", "2021", "2", "garden", "1"]
        assert text(desk, "filter-said") == "All photos"
        wait_for_bars("2020", "2021", "2022")
        assert text(desk, "filter-undated") == "Dated by their files, not by when they were taken: 2 of 4 photos."
        press("Only no subfolder", "#folder=.")
        assert (names(desk), text(desk, "filter-said")) == (["3.png"], "In no subfolder")
        wait_for_bars("2020")
        press("Only garden", "#folder=garden")
        assert names(desk) == ["2.png"]
        wait_for_bars("2022")
        press("Folders in 2021", "#folder=garden")
        press("Only 2021/snow", "#folder=2021/snow")
        both = "#folder=2021/snow&folder=garden"
        press("Also garden", both)
        assert text(desk, "status") == "2 photos, newest first"
        desk.find_element(By.CSS_SELECTOR, "#filter summary").click()
        open_filter(desk)
        assert text(desk, "filter-said") == "In 2021/snow or garden"
        # In one step: they are drawn anew once they are counted.
        ticked = "return [...document.querySelectorAll('#filter-folders :checked')].map((box) => box.ariaLabel)"
        wait(desk).until(lambda d: d.execute_script(ticked) == ["Also 2021/snow", "Also garden"])
        press("2021: 1 photo", f"{both}&after=2021-01-01&before=2021-12-31")
        wait_for_bars("2021", "2022", "Jan")
        press("January 2021: 1 photo", f"{both}&after=2021-01-01&before=2021-01-31")
        assert text(desk, "filter-said") == "In 2021/snow or garden · January 2021"
        assert parts(desk)["parts"] == ["Remove: In 2021/snow or garden", "Remove: January 2021"]
        assert names(desk) == ["0.png"]
        wait_for_bars("5")
        assert axe_complaints(desk) == []
        press("January 2021: 1 photo", f"{both}&after=2021-01-01&before=2021-12-31")
        desk.find_element(By.ID, "filter-none").click()
        wait_for_notice(desk, "What are you looking for?")


def test_a_filter_alone_shows_what_passes_newest_first(desk: Browser, server: Served, gallery: Path) -> None:
    desk.get(f"{server.url}/#after=2001-01-01")
    wait_for_photos(desk)
    assert text(desk, "status") == f"20 of {PHOTOS} photos, newest first"
    assert parts(desk)["parts"] == ["Remove: From 1 January 2001"]
    assert not desk.find_element(By.ID, "word").is_displayed()
    open_filter(desk)
    field = desk.find_element(By.ID, "filter-folder")
    field.send_keys("nowhere", Keys.ENTER)
    assert text(desk, "filter-folders") == "No folder of this collection has “nowhere” in its name."
    field.clear()
    field.send_keys("Größ", Keys.ENTER)
    wait_for_search(desk, f"{FOLDER_HASH}&after=2001-01-01")
    filter_by(desk, after="")
    wait_for_search(desk, FOLDER_HASH)
    desk.find_element(By.CSS_SELECTOR, "#parts .filter").click()
    wait_for_notice(desk, "What are you looking for?")
    desk.find_element(By.ID, "parts-undo").click()
    wait_for_search(desk, FOLDER_HASH)
    assert parts(desk)["parts"] == ["Remove: In größe"]
    wait(desk).until(lambda d: sorted(names(d)) == IN_FOLDER)
    assert not desk.find_element(By.ID, "more").is_displayed()
    assert text(desk, "more-note") == "These are all the photos."
    draw(desk, DESKTOP, strokes("star"))
    wait(desk).until(lambda d: "best first" in text(d, "status"))
    assert sorted(names(desk)) == IN_FOLDER
    assert not desk.find_element(By.ID, "more").is_displayed()


WORDS = (("sofa", "couch"), ("dog", "hound"), ("cat",), ("sea lion",), ("dogsled",), ("tuba",))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, gallery: Path, settings: Settings) -> Iterator[Served]:
    with served(wordy(settings, gallery, tmp_path_factory.mktemp("words"), WORDS)) as running:
        yield running


def guessed(driver: Browser) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelectorAll('#guesses button')].map((button) => button.firstChild.textContent)"
    )


def completions(driver: Browser) -> list[str]:
    return driver.execute_script("return [...document.querySelectorAll('#words option')].map((option) => option.value)")


def test_a_word_is_completed_and_enough_to_search_with(desk: Browser, known: Served) -> None:
    desk.get(known.url)
    wait(desk).until(lambda d: d.find_element(By.ID, "word").is_displayed())
    desk.find_element(By.ID, "word").send_keys("do")
    wait(desk).until(lambda d: completions(d) == ["dog", "dogsled", "doggy"])
    desk.find_element(By.ID, "word").send_keys("g", Keys.ENTER)
    wait_for_search(desk, "#text=dog")
    assert parts(desk)["parts"] == ["Remove: The word dog"]
    assert searches(desk)[-1]["text"] == ["dog"]
    desk.find_element(By.ID, "why-open").click()
    wait(desk).until(lambda d: text(d, "why-wait-text").startswith("Where photos show"))
    desk.find_element(By.ID, "why-close").click()
    desk.refresh()
    wait_for_photos(desk)
    assert parts(desk)["parts"] == ["Remove: The word dog"]
    desk.find_element(By.CSS_SELECTOR, "#parts .word").click()
    wait_for_notice(desk, "What are you looking for?")
    desk.find_element(By.ID, "parts-undo").click()
    wait_for_search(desk, "#text=dog")


UNKNOWN = "“{}” is not a known word: {}"
NOTHING = "nothing was searched for. Draw it, or name something else."
REST = "left out. Similar:"


def test_a_word_that_is_not_known_is_set_aside_and_the_drawing_is_searched_with(desk: Browser, known: Served) -> None:
    desk.get(known.url)
    wait(desk).until(lambda d: d.find_element(By.ID, "word").is_displayed())
    desk.find_element(By.ID, "word").send_keys("water", Keys.ENTER)
    wait(desk).until(lambda d: text(d, "word-unknown") == UNKNOWN.format("water", NOTHING))
    wait_for_notice(desk, "What are you looking for?")
    desk.find_element(By.ID, "word").send_keys("dog", Keys.ENTER)
    wait_for_search(desk, "#text=dog")
    desk.find_element(By.ID, "word").send_keys("my water", Keys.ENTER)
    wait(desk).until(lambda d: text(d, "word-unknown") == UNKNOWN.format("my water", NOTHING))
    wait_for_notice(desk, "What are you looking for?")
    assert (parts(desk)["hash"], names(desk)) == ("", []), "photos of the word before would be taken for those of this"
    desk.find_element(By.ID, "parts-undo").click()
    wait_for_search(desk, "#text=dog")
    desk.find_element(By.ID, "clear").click()
    wait_for_notice(desk, "What are you looking for?")
    draw(desk, DESKTOP, strokes("cross"))
    wait_for_photos(desk)
    desk.find_element(By.ID, "word").send_keys("dgo", Keys.ENTER)
    wait_for_photos(desk, lambda d: text(d, "word-unknown") == UNKNOWN.format("dgo", REST))
    assert (parts(desk)["hash"], text(desk, "status")) == ("", f"20 of {PHOTOS} photos, best first")
    expect_complaints(desk, "422")
    assert axe_complaints(desk) == []
    desk.find_element(By.CSS_SELECTOR, "#word-nearest button").click()
    wait_for_search(desk, "#text=dog")
    assert text(desk, "word-unknown") == ""
    desk.find_element(By.ID, "word").send_keys("water")
    desk.find_element(By.ID, "search").click()
    wait(desk).until(lambda d: text(d, "word-unknown").startswith(UNKNOWN.format("water", "left out")))
    expect_complaints(desk, "422")
    assert parts(desk)["parts"][0] == "Remove: The word dog"
    desk.find_element(By.ID, "clear").click()
    wait_for_notice(desk, "What are you looking for?")
    assert (parts(desk)["hash"], parts(desk)["parts"], names(desk), guessed(desk)) == ("", [], [], [])
    assert not desk.find_element(By.ID, "clear").is_enabled()
    desk.find_element(By.ID, "undo").click()
    wait_for_search(desk, "#text=dog")
    assert parts(desk)["parts"] == ["Remove: The word dog", "Remove the drawing"]


def test_a_word_keeps_the_view(desk: Browser, known: Served, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No group is far ahead.
    monkeypatch.setattr(shown, "FAR_AHEAD", 2)
    find(desk, known, "circle")
    choose(desk, "label:has([value='auto'])")
    wait(desk).until(lambda d: " photos" in text(d, "status"))
    choose_file(desk, mine)
    wait_for_photos(desk, lambda d: " group" in text(d, "status"))
    monkeypatch.setattr(shown, "FAR_AHEAD", 0)
    desk.find_element(By.ID, "word").send_keys("dog", Keys.ENTER)
    wait_for_search(desk, "#text=dog")
    assert " group" in text(desk, "status")
    draw(desk, DESKTOP, strokes("cross"))
    wait_for_photos(desk, lambda d: " photos" in text(d, "status"))


def in_the_line(driver: Browser, end: str) -> bool:
    return any(part.endswith(end) for part in parts(driver)["parts"])


@pytest.mark.parametrize("screen", [LAPTOP, PHONE], ids=lambda screen: screen.name)
def test_what_is_added_to_the_query_moves_photos_by_two_lines(opened: Browser, known: Served, screen: Screen) -> None:
    with on_screen(opened, screen) as driver:
        find(driver, known, screen=screen)
        wait(driver).until(guessed)
        assert run(driver, "visible_share", driver.find_element(By.ID, "guesses")) == 1
        place = "return document.getElementById('results').getBoundingClientRect().top + scrollY"
        first = driver.execute_script(place)

        def check() -> None:
            wait_for_photos(driver)
            assert 0 <= driver.execute_script(place) - first <= 60
            assert driver.execute_script("return document.documentElement.scrollWidth") <= screen.width

        for deed, where in (("like", 2), ("like", 3), ("unlike", 4)):
            name, _ = photo(driver, where)
            press(driver, deed, where)
            wait(driver).until(partial(in_the_line, end=name))
            check()
        if screen.phone:
            frame, button = (
                driver.find_element(By.CSS_SELECTOR, f"#results .{one}").rect for one in ("frame", "small.like")
            )
            assert button["y"] >= frame["y"] + frame["height"], "a finger's button would hide much of a small photo"
        else:
            of_many = "document.getElementById('status').textContent = '19 more of 2,999, best first'"
            driver.execute_script(of_many)
            assert driver.find_element(By.ID, "status").rect["height"] < 30, "the heading is one line"
        last, line = (driver.find_element(By.CSS_SELECTOR, one).rect for one in ("#parts .unlike", "#parts"))
        assert line["x"] <= last["x"] <= last["x"] + last["width"] <= line["x"] + line["width"]
        for word, part in (("dog", "#parts .word"), ("dgo", "#word-nearest button")):
            driver.find_element(By.ID, "word").send_keys(word, Keys.ENTER)
            wait(driver).until(partial(Browser.find_element, by=By.CSS_SELECTOR, value=part))
            check()
        check_suits_everybody(driver, screen)
        driver.find_element(By.ID, "choose").click()
        check()
        driver.find_element(By.ID, "choose").click()
        wait(driver).until(lambda d: not d.find_element(By.ID, "chosen").is_displayed())
        draw(driver, screen, strokes("cross"))
        check()
        driver.execute_script("document.querySelector('[name=tool][value=move]').click()")
        draw(driver, screen, [strokes("cross")[0][:1]])
        wait(driver).until(lambda d: d.find_element(By.ID, "remove").is_displayed())
        check()
        expect_complaints(driver, "422")


def test_guesses_are_asked_and_not_told(desk: Browser, known: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = known.context.live.engine()._matcher.engine
    assert engine.vocabulary is not None
    # As probably any of the six words as none of them.
    monkeypatch.setattr(engine, "vocabulary", replace(engine.vocabulary, guess_scale=0.0, guess_none=0.0))
    find(desk, known)
    wait(desk).until(guessed)
    assert (len(guessed(desk)), guessed(desk)[-1]) == (4, "Something else…")
    assert text(desk, "seen-said") == "I do not know what this is. What is it?"
    wait_for_photos(desk)


def test_a_guess_names_a_drawing_by_a_press_and_leaves_with_it(desk: Browser, known: Served, drawn: Path) -> None:
    desk.get(known.url)
    choose_file(desk, drawn)
    wait(desk).until(guessed)
    wait_for_photos(desk)
    word = guessed(desk)[0]
    desk.find_element(By.CSS_SELECTOR, "#guesses button").click()
    wait(desk).until(lambda d: parts(d)["parts"] == [f"Remove: The word {word}", "Remove the drawing"])
    wait_for_photos(desk, lambda d: guessed(d) == [])
    desk.find_element(By.CSS_SELECTOR, "#parts .word").click()
    wait_for_photos(desk, lambda d: guessed(d)[:1] == [word])
    # The next search fails. What the last one found and guessed is not left under its error.
    desk.execute_script("window.fetch = async () => { throw new TypeError('away'); }")
    draw(desk, DESKTOP, strokes("circle"))
    wait_for_notice(desk, "Can’t reach the server")
    assert (names(desk), guessed(desk)) == ([], [])
