import io
import json
import shutil
import threading
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import ExifTags, Image
from pydantic import SecretStr
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sketch_search import model
from sketch_search.indexer import BuildRequest, build
from sketch_search.indexer.building.staging import Phase
from sketch_search.model.answers import ProgressState
from sketch_search.service.http.app import create_app
from sketch_search.service.settings import Settings, index_path
from tests import browser
from tests.browser import DESKTOP, PHONE, Browser, before_pages, draw, run, wait, wait_for_photos
from tests.pictures import strokes
from tests.programs import PATIENCE
from tests.requirements import needs_browser
from tests.service.looking import (
    axe_complaints,
    choose,
    ends_with,
    expect_complaints,
    find,
    names,
    on_screen,
    paper,
    searches,
    served_to,
    text,
    wait_for_notice,
)
from tests.service.served import Served
from tests.service.small_gallery import PHOTOS, draw_photo, save_copy

pytestmark = needs_browser


def test_a_drawing_finds_photos_and_a_click_shows_one(opened: Browser, server: Served) -> None:
    with on_screen(opened, PHONE) as driver, before_pages(driver, "show_photos"):
        driver.get(server.url)
        wait_for_notice(driver, "What are you looking for?")
        draw(driver, PHONE, strokes("star"))
        wait_for_photos(driver)
        assert text(driver, "status") == f"20 of {PHOTOS} photos, best first"
        driver.find_element(By.CSS_SELECTOR, "#settings > summary").click()
        assert text(driver, "timings").startswith("Found in ")
        driver.find_element(By.CSS_SELECTOR, "#settings > summary").click()
        first, second, *_ = driver.find_elements(By.CSS_SELECTOR, "#results .photo")
        assert first.get_attribute("aria-label") == "1: {}".format(*first.text.split("\n")[1:])

        first.click()
        dialog = driver.find_element(By.ID, "viewer")
        wait(driver).until(lambda _: dialog.is_displayed() and "loading" not in str(dialog.get_attribute("class")))
        assert driver.find_element(By.ID, "viewer-image").get_property("naturalWidth") == 96
        assert text(driver, "viewer-rank") == f"1 of {PHOTOS}"
        assert text(driver, "viewer-paths").split("\n") == str(first.get_attribute("title")).split("\n")
        dialog.send_keys(Keys.ARROW_RIGHT)
        assert text(driver, "viewer-rank") == f"2 of {PHOTOS}"
        assert text(driver, "viewer-paths").split("\n") == str(second.get_attribute("title")).split("\n")
        dialog.send_keys(Keys.ESCAPE)
        wait(driver).until(lambda d: not dialog.is_displayed())
        wait(driver).until(lambda d: d.switch_to.active_element == second)

        assert driver.execute_script("return document.documentElement.scrollWidth") <= PHONE.width


def test_the_query_is_shown_in_words_and_grows_from_the_page(
    desk: Browser, default_settings: Settings, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(index_path(default_settings), tmp_path / "index")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "broken.jpg").write_bytes(b"no picture")
    save_copy(tmp_path / "more" / "one.png", 77, 0)
    with served_to(desk, default_settings, index=tmp_path / "index") as server:
        desk.get(server.page)
        wait(desk).until(lambda d: text(d, "about-open") == "23 photos")
        desk.find_element(By.ID, "about-open").click()
        wait(desk).until(lambda d: str(gallery) in text(d, "gallery"))
        assert not desk.find_element(By.ID, "unread").is_displayed()
        assert not desk.find_element(By.ID, "growing-how").is_displayed()
        desk.find_element(By.CSS_SELECTOR, "#about details:has(#info) summary").click()
        said = text(desk, "info")
        assert all(part in said for part in ("[Ret]: a stand-in, not CLIP", "two-sided-s14", "Apache License"))

        add_folder(desk, tmp_path / "more")
        wait(desk).until(lambda d: text(d, "about-note") == "Done: 24 photos in the index.")
        wait(desk).until(lambda d: text(d, "unread-count") == "1 file could not be read")
        wait(desk).until(lambda d: text(d, "gallery").count(str(tmp_path / "more")) == 1)
        desk.find_element(By.CSS_SELECTOR, "#unread summary").click()
        assert text(desk, "unread-list").startswith("more/broken.jpg: not a supported image")
        assert axe_complaints(desk) == []
        save_copy(tmp_path / "more" / "two.png", 78, 0)
        add_folder(desk, tmp_path / "more")
        again = f"{tmp_path / 'more'} is already in the index. Done: 25 photos in the index."
        wait(desk).until(lambda d: text(d, "about-note") == again)
        save_copy(tmp_path / "more" / "three.png", 79, 0)
        desk.find_element(By.ID, "look-again").click()
        wait(desk).until(lambda d: text(d, "about-note") == "Done: 26 photos in the index.")
        wait(desk).until(lambda d: "26 photos" in text(d, "gallery"))
        for said in ("Remove", "Really remove"):
            button = desk.find_element(By.CSS_SELECTOR, f"[aria-label='Remove {tmp_path / 'more'} from the index']")
            assert button.text == said
            button.click()
        note = "Removed 4 files from the index. The files themselves are untouched."
        wait(desk).until(lambda d: text(d, "about-note") == note)
        wait(desk).until(lambda d: text(d, "about-open") == "23 photos")
        wait(desk).until(lambda d: str(tmp_path / "more") not in text(d, "gallery"))
        (tmp_path / "copies").mkdir()
        shutil.copy(next(gallery.rglob("*.png")), tmp_path / "copies")
        save_copy(tmp_path / "copies" / "new.png", 80, 0)
        add_folder(desk, tmp_path / "copies")
        copied = "Done: 24 photos in the index. Here already: 1 of the new files."
        wait(desk).until(lambda d: text(d, "about-note") == copied)


def add_folder(driver: Browser, folder: Path) -> None:
    driver.find_element(By.ID, "folder-add").click()
    wait(driver).until(lambda d: d.find_element(By.ID, "folder").get_property("value"))
    field = driver.find_element(By.ID, "folder")
    field.clear()
    field.send_keys(str(folder), Keys.ENTER)
    wait(driver).until(lambda d: not d.find_element(By.ID, "folders").is_displayed())


def test_the_page_can_be_installed_and_without_javascript_shows_a_message_alone(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    assert desk.execute_cdp_cmd("Page.getInstallabilityErrors", {}) == {"installabilityErrors": []}
    manifest = json.loads(desk.execute_cdp_cmd("Page.getAppManifest", {})["data"])
    assert manifest["name"] == desk.title
    # iPads take no SVG, and fill what is transparent with black.
    icon = str(desk.find_element(By.CSS_SELECTOR, "link[rel=apple-touch-icon]").get_property("href"))
    with Image.open(io.BytesIO(httpx.get(icon).content)) as touched:
        assert (touched.format, touched.size, touched.has_transparency_data) == ("PNG", (180, 180), False)
    desk.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        desk.get(server.url)
        assert desk.find_element(By.CLASS_NAME, "noscript").text.startswith("Drawing needs JavaScript.")
        assert not desk.find_element(By.TAG_NAME, "main").is_displayed()
    finally:
        desk.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_page_works_at_an_address_with_a_name_and_a_password(desk: Browser, server: Served) -> None:
    desk.get(server.url.replace("//", "//someone:secret@") + "/")
    draw(desk, DESKTOP, strokes("star"))
    wait_for_photos(desk)
    assert names(desk)


def test_buttons_search_and_bring_more_photos_and_scrolling_each_once(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    wait(desk).until(lambda d: d.find_elements(By.CSS_SELECTOR, "#count option"))
    choose(desk, "option[value='10']")
    choose(desk, "label:has(#live)")
    draw(desk, DESKTOP, strokes("circle"))
    desk.find_element(By.ID, "undo").click()
    desk.find_element(By.ID, "redo").click()
    assert searches(desk) == []
    desk.find_element(By.ID, "search").click()
    wait(desk).until(partial(ends_with, name="status", end=f"10 of {PHOTOS} photos, best first"))
    assert not any("offset=" in url for url in browser.requested(desk))
    choose(desk, "label:has(#live)")
    # By a key and without scrolling, which brings them, too, and may hide the button.
    desk.execute_script("document.getElementById('more').focus({ preventScroll: true })")
    ActionChains(desk).send_keys(Keys.ENTER).perform()
    wait(desk).until(partial(ends_with, name="status", end=f"20 of {PHOTOS} photos, best first"))
    wait(desk).until(lambda d: run(d, "scroll_to_the_end") == "No more matching photos.")
    assert text(desk, "status") == f"{PHOTOS} photos, best first"
    buttons = desk.find_elements(By.CSS_SELECTOR, "#results .photo")
    assert len({button.get_attribute("title") for button in buttons}) == PHOTOS
    assert [str(button.get_attribute("aria-label")).split(":")[0] for button in buttons] == [
        str(rank) for rank in range(1, PHOTOS + 1)
    ]


def test_a_photo_can_be_copied_downloaded_and_searched_with(desk: Browser, server: Served, tmp_path: Path) -> None:
    browser.download_to(desk, tmp_path)
    find(desk, server)
    desk.find_elements(By.CSS_SELECTOR, "#results .photo")[-1].click()
    name = text(desk, "viewer-title")
    desk.find_element(By.ID, "viewer-copy").click()
    wait(desk).until(lambda d: text(d, "viewer-note") in ("Copied.", "The path is selected: copy it with Ctrl C."))
    desk.find_element(By.ID, "viewer-download").click()
    wait(desk).until(lambda _: (tmp_path / name).exists())
    drawn = paper(desk)
    assert desk.execute_script("return scrollY") > 0
    desk.find_element(By.ID, "viewer-search").click()
    wait(desk).until(lambda d: not np.array_equal(paper(d), drawn))
    assert not desk.find_element(By.ID, "viewer").is_displayed()
    wait_for_photos(desk)
    wait(desk).until(lambda d: d.execute_script("return scrollY") == 0)


def test_a_photo_whose_file_is_gone_says_so(desk: Browser, settings: Settings, weights: Path, tmp_path: Path) -> None:
    photo, index = tmp_path / "photos" / "a.png", tmp_path / "index"
    photo.parent.mkdir()
    draw_photo(0).save(photo)
    build(index, BuildRequest([photo.parent], clusters=1, embedder="ret"), model.load(weights))
    with served_to(desk, settings, index=index) as server:
        find(desk, server)
        photo.unlink()
        desk.find_element(By.CSS_SELECTOR, "#results .photo").click()
        wait(desk).until(lambda d: text(d, "viewer-note").startswith("The file of this photo is gone"))
        assert not desk.find_element(By.ID, "viewer-download").is_displayed()
        wait(desk).until(lambda d: not d.find_elements(By.CSS_SELECTOR, "dialog.loading"))
        expect_complaints(desk, "404")
        assert not desk.find_element(By.ID, "viewer-reveal").is_displayed(), "it is refused without the token"


def test_an_open_photo_has_facts_and_zooms(desk: Browser, settings: Settings, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Nokia", "Lumia"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2019:07:14 17:03:21"
    draw_photo(0).resize((900, 600)).save(tmp_path / "photos" / "a.jpg", exif=exif)
    index = tmp_path / "index"
    build(index, BuildRequest([tmp_path / "photos"], clusters=1, embedder="ret"), model.load(weights))
    with served_to(desk, settings, index=index, link="https://photos.example/search?query={name}") as server:
        find(desk, server)
        desk.find_element(By.CSS_SELECTOR, "#results .photo").click()
        wait(desk).until(lambda d: text(d, "viewer-facts"))
        link = desk.find_element(By.ID, "viewer-link")
        assert (link.text, link.get_attribute("href")) == (
            "Open at photos.example",
            "https://photos.example/search?query=a.jpg",
        )
        size = (tmp_path / "photos" / "a.jpg").stat().st_size
        assert text(desk, "viewer-facts").split("\n") == [
            *("Taken", "14 July 2019, 17:03:21", "Camera", "Nokia Lumia"),
            *("Size", f"900 × 600 pixels, {-(-size // 1000)} kB"),
        ]
        assert str(desk.find_element(By.ID, "viewer-original").get_attribute("href")).endswith("/photos/1")
        wait(desk).until(lambda d: not d.find_elements(By.CSS_SELECTOR, "dialog.loading"))
        image = desk.find_element(By.ID, "viewer-image")

        def shown() -> dict[str, float]:
            return desk.execute_script("return arguments[0].getBoundingClientRect().toJSON()", image)

        whole = shown()
        ActionChains(desk).send_keys("+").perform()
        assert shown()["width"] == pytest.approx(1.5 * whole["width"])
        ActionChains(desk).move_to_element(image).click_and_hold().move_by_offset(40, 0).release().perform()
        assert shown()["x"] == pytest.approx(whole["x"] - 0.25 * whole["width"] + 40, abs=2)
        ActionChains(desk).send_keys("0").perform()
        assert shown() == whole
        ActionChains(desk).scroll_from_origin(ScrollOrigin.from_element(image), 0, -300).perform()
        wait(desk).until(lambda d: shown()["width"] > 2 * whole["width"])


def test_chosen_photos_are_downloaded(desk: Browser, settings: Settings, gallery: Path, tmp_path: Path) -> None:
    browser.download_to(desk, tmp_path)
    with served_to(desk, settings, api_key=SecretStr("secret")) as server:
        desk.get(server.page)
        wait_for_notice(desk, "This server requires a key")
        # A live region is read out as a whole; nobody can be asked for something in it.
        assert not desk.find_elements(By.CSS_SELECTOR, "[role=status] form, [aria-live] form")
        desk.find_element(By.ID, "key").send_keys("secret", Keys.ENTER)
        wait_for_notice(desk, "What are you looking for?")
        assert not desk.find_element(By.ID, "choose").is_displayed()
        draw(desk, DESKTOP, strokes("star"))
        wait_for_photos(desk)
        desk.find_element(By.ID, "choose").click()
        assert text(desk, "chosen-count") == "0 photos chosen"
        tiles = desk.find_elements(By.CSS_SELECTOR, "#results .photo")
        tiles[0].click()
        for tile in tiles[1:4]:
            tile.send_keys(Keys.ENTER)
        tiles[2].send_keys(Keys.SPACE)
        assert text(desk, "chosen-count") == "3 photos chosen"
        assert [tile.get_attribute("aria-pressed") for tile in tiles[:5]] == ["true", "true", "false", "true", "false"]
        assert not desk.find_element(By.ID, "viewer").is_displayed()
        assert axe_complaints(desk) == []
        paths = [str(gallery / str(tiles[i].get_attribute("title")).split("\n")[0]) for i in (0, 1, 3)]
        desk.find_element(By.ID, "chosen-list").click()
        wait(desk).until(lambda _: (tmp_path / "photos.txt").exists())
        assert (tmp_path / "photos.txt").read_text().splitlines() == paths
        desk.find_element(By.ID, "chosen-zip").click()
        wait(desk).until(lambda _: (tmp_path / "photos.zip").exists())
        with zipfile.ZipFile(tmp_path / "photos.zip") as archive:
            assert archive.namelist() == [Path(path).name for path in paths]
            assert archive.read(Path(paths[0]).name) == Path(paths[0]).read_bytes()
        desk.find_element(By.ID, "chosen-all").click()
        assert text(desk, "chosen-count") == "20 photos chosen"
        desk.find_element(By.ID, "choose").click()
        assert not desk.find_element(By.ID, "chosen").is_displayed()
        assert tiles[0].get_attribute("aria-pressed") is None
        tiles[0].click()
        wait(desk).until(lambda d: not d.find_elements(By.CSS_SELECTOR, "dialog.loading"))
        assert desk.find_element(By.ID, "viewer-image").get_property("naturalWidth") == 96
        expect_complaints(desk, "401")


def test_the_page_works_where_the_browser_blocks_site_data(desk: Browser, settings: Settings) -> None:
    protected = settings.model_copy(update={"api_key": SecretStr("secret")})
    with served_to(desk, protected) as server, before_pages(desk, "block_storage"):
        desk.get(server.url)
        wait_for_notice(desk, "This server requires a key")
        desk.find_element(By.ID, "key").send_keys("secret", Keys.ENTER)
        wait_for_notice(desk, "What are you looking for?")
        ActionChains(desk).send_keys("?").perform()
        desk.find_element(By.CSS_SELECTOR, "#help .switch").click()
        desk.find_element(By.ID, "help-close").click()
        choose(desk, "label:has([value='photos'])")
        draw(desk, DESKTOP, strokes("house"))
        wait_for_photos(desk)
        assert text(desk, "status") == f"20 of {PHOTOS} photos, best first"
        # The complaint is about the request without a key, which was refused.
        expect_complaints(desk, "401")


def press_folder(driver: Browser, name: str, path: Path) -> None:
    wait(driver).until(
        lambda d: d.execute_script(
            "const one = [...document.querySelectorAll('#folders-list button')]"
            ".find((button) => button.textContent === arguments[0]);"
            "one?.focus(); one?.click(); return Boolean(one);",
            name,
        )
    )
    wait(driver).until(lambda d: d.find_element(By.ID, "folder").get_property("value") == str(path))


def test_a_first_visit_names_a_folder_watches_it_being_indexed_and_searches(
    desk: Browser, default_settings: Settings, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(gallery.parent))
    with served_to(desk, default_settings, index=tmp_path / "index", variants=1) as server:
        desk.get(server.page)
        wait_for_notice(desk, "Where are your photos?")
        assert not desk.find_element(By.ID, "paper").is_displayed()
        assert axe_complaints(desk) == []
        desk.find_element(By.ID, "folder-choose").click()
        folder = desk.find_element(By.ID, "folder")
        wait(desk).until(lambda _: folder.get_property("value"))
        folder.clear()
        folder.send_keys(str(tmp_path / "none"), Keys.ENTER)
        wait(desk).until(lambda d: "does not exist" in text(d, "folder-note"))
        expect_complaints(desk, "422")
        assert axe_complaints(desk) == []
        folder.clear()
        typed = str(gallery.parent / gallery.name[:3].upper())
        folder.send_keys(typed)
        listed = "return [...document.querySelectorAll('#folders-list li')].map((one) => one.textContent)"
        wait(desk).until(
            lambda d: (
                {name[:3] for name in d.execute_script(listed)} == {"Par", gallery.name[:3]}
                and gallery.name in d.execute_script(listed)
            )
        )
        assert folder.get_property("value") == typed
        for name, path in ((gallery.name, gallery), ("größe", gallery / "größe"), ("Parent folder", gallery)):
            press_folder(desk, name, path)
            assert desk.switch_to.active_element.text == "Parent folder"
        folder.send_keys(Keys.ENTER)
        wait_for_notice(desk, "Your photos are being read")
        assert desk.find_element(By.ID, "notice-progress").is_displayed()
        wait_for_notice(desk, "What are you looking for?")
        wait(desk).until(lambda d: text(d, "about-open") == f"{PHOTOS} photos")
        wait(desk).until(lambda d: not d.find_element(By.ID, "building").is_displayed())
        draw(desk, DESKTOP, strokes("house"))
        wait_for_photos(desk)
        assert desk.find_elements(By.CSS_SELECTOR, "#results .photo")


def test_a_build_that_was_stopped_can_go_on(desk: Browser, default_settings: Settings, tmp_path: Path) -> None:
    shutil.copytree(index_path(default_settings), tmp_path / "index")
    (tmp_path / "index" / "progress.json").write_text(progress("stopped", 10))
    with served_to(desk, default_settings, index=tmp_path / "index") as server:
        desk.get(server.page)
        wait(desk).until(lambda d: "stopped before it finished" in text(d, "building-text"))
        assert axe_complaints(desk) == []
        desk.find_element(By.ID, "building-on").click()
        wait(desk).until(lambda d: not d.find_element(By.ID, "building").is_displayed())
        info = httpx.get(f"{server.url}/info", timeout=PATIENCE).json()
        assert (info["build"]["phase"], info["build"]["failed"]) == ("done", None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "To choose their folder here, open the address, or the file, that the program printed when it started."),
        ({"allow_build": False}, "sketch-search index build"),
        ({"weights": Path("nowhere.safetensors")}, "There is no checkpoint at"),
    ],
    ids=["needs the token", "nobody may build", "no checkpoint"],
)
def test_without_an_index_the_page_says_what_to_do_to_those_who_may_not_build(
    desk: Browser, settings: Settings, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with served_to(desk, settings, index=tmp_path / "nowhere", **changes) as server:
        desk.get(server.url)
        wait_for_notice(desk, "Not ready yet" if changes else "Where are your photos?")
        assert said in text(desk, "notice-text")
        assert "header" not in text(desk, "notice-text")
        assert not desk.find_element(By.ID, "paper").is_displayed()


def progress(phase: Phase, done: int) -> str:
    """Returns the file that a build writes after so many of 40 photos."""
    state = ProgressState(phase=phase, done=done, total=40, photos_per_second=1, seconds_left=30, updated=time.time())
    return state.model_dump_json()


def test_a_build_that_is_under_way_shows_how_far_it_is(desk: Browser, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text(progress("encoding", 10))
    with served_to(desk, settings, index=tmp_path) as server:
        desk.get(server.url)
        wait_for_notice(desk, "Your photos are being read")
        wait(desk).until(lambda d: "10 of 40, about 30 seconds left" in text(d, "notice-text"))
        assert desk.find_element(By.ID, "notice-progress").get_property("value") == 0.25
        assert not desk.find_element(By.ID, "bar").is_displayed()
        draw(desk, DESKTOP, strokes("house"))
        (tmp_path / "progress.json").write_text(progress("clustering", 30))
        wait(desk).until(lambda d: "30 of 40" in text(d, "notice-text"))


@pytest.mark.parametrize(
    ("status", "headers", "title"),
    [
        (302, {"location": "http://127.0.0.1:9/login"}, "Sign in again"),
        *((status, {"content-type": "text/html; charset=utf-8"}, "Sign in again") for status in (200, 403)),
        (502, {"content-type": "text/html"}, "Can\u2019t reach the server"),
    ],
)
def test_a_search_goes_on_once_somebody_has_signed_in_again(
    desk: Browser, settings: Settings, status: int, headers: dict[str, str], title: str
) -> None:
    ended = threading.Event()
    app = create_app(settings)

    class Login:
        """A login in front of the server, or a proxy that does not reach it."""

        def __init__(self, inner: ASGIApp) -> None:
            self.inner = inner

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            refuses = scope["type"] == "http" and ended.is_set()
            page = Response("<!doctype html><title>Sign in</title>", status, headers)
            await (page if refuses else self.inner)(scope, receive, send)

    app.add_middleware(Login)
    with served_to(desk, settings, app) as server:
        find(desk, server)
        drawn = paper(desk)
        ended.set()
        draw(desk, DESKTOP, [[(-0.9, -0.95), (0.9, -0.95)]])
        wait_for_notice(desk, title)
        link = desk.find_element(By.ID, "login")
        assert link.is_displayed() == (title == "Sign in again")
        assert link.get_attribute("href") == f"{server.url}/"
        ended.clear()
        wait_for_photos(desk)
        assert (paper(desk) != drawn).any()
        assert not link.is_displayed()
    if status > 400:
        expect_complaints(desk, str(status))
    elif status == 302:
        # A thumbnail that was still on its way follows the redirect, and the console says where that ended.
        browser.complaints(desk)
