from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from sketch_search import Remote, model
from sketch_search.indexer import BuildRequest, Index, build, open_index
from sketch_search.indexer.building import staging
from sketch_search.model import Matcher
from sketch_search.model.decoding import Decoders
from sketch_search.service.http import app
from sketch_search.service.serving import live
from sketch_search.service.settings import Settings
from tests.pictures import encoded
from tests.programs import PATIENCE
from tests.searching import Searcher
from tests.service.served import Served, served
from tests.service.small_gallery import CLUSTERS, MAX_UPLOAD, PHOTOS, draw_photo, draw_sketch

# Only the tests of the page need selenium.
if TYPE_CHECKING:
    from tests.browser import Browser


# A busy machine may take seconds for a search.
LIMITS = {"max_upload_bytes": MAX_UPLOAD, "max_pixels": 1_000_000, "max_k": 50, "queue_seconds": PATIENCE}


class KeptDecoders(Decoders):
    """Decoding processes that stay when whoever used them is done."""

    def close(self) -> None:
        """Leave them to the next."""


@pytest.fixture(scope="session")
def decoders() -> Iterator[Decoders]:
    kept = KeptDecoders(8)
    yield kept
    Decoders.close(kept)


@pytest.fixture(scope="package", autouse=True)
def shared_decoders(decoders: Decoders) -> Iterator[None]:
    """Servers and builds take decoding processes that are there: to start one takes longer than most tests.

    Programs start their own, and so does what was there before this.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "Decoders", lambda most: decoders)
        patch.setattr(staging, "Decoders", lambda most: decoders)
        yield


@pytest.fixture(scope="package", autouse=True)
def short_pauses() -> Iterator[None]:
    """Servers look for a new index more often than users need it: tests wait for that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "POLL_SECONDS", 0.05)
        yield


@pytest.fixture(scope="session")
def opened() -> Iterator["Browser"]:
    from tests.browser import DESKTOP, before_pages, browser

    with browser(DESKTOP, still=True) as driver, before_pages(driver, "unblurred"), before_pages(driver, "hurried"):
        yield driver


@pytest.fixture
def desk(opened: "Browser") -> Iterator["Browser"]:
    """Gives the browser once it has forgotten the test before; pages show photos until something else is chosen."""
    from tests.browser import before_pages
    from tests.service.looking import check_quiet, forgetful

    with before_pages(opened, "show_photos"):
        yield forgetful(opened)
        check_quiet(opened)


@pytest.fixture(scope="session")
def matcher(weights: Path) -> Matcher:
    return model.load(weights)


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PHOTOS different pictures in two folders; the first one is there three times."""
    root = tmp_path_factory.mktemp("gallery")
    (root / "größe").mkdir()
    for seed in range(PHOTOS):
        folder = root / "größe" if seed % 3 == 0 else root
        (folder / f"p{seed:02}.png").write_bytes(encoded(draw_photo(seed)))
    for copy in ("again.png", "once more.png"):
        (root / copy).write_bytes(encoded(draw_photo(0)))
    return root


@pytest.fixture(scope="session")
def index_path(tmp_path_factory: pytest.TempPathFactory, gallery: Path, matcher: Matcher) -> Path:
    path = tmp_path_factory.mktemp("index") / "index"
    build(path, BuildRequest([gallery], clusters=CLUSTERS, embedder="ret"), matcher)
    return path


@pytest.fixture(scope="session")
def index(index_path: Path, matcher: Matcher) -> Iterator[Index]:
    opened = open_index(index_path, matcher)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def searcher(index: Index, matcher: Matcher) -> Searcher:
    return Searcher(index, matcher)


@pytest.fixture(scope="session")
def settings(index_path: Path, weights: Path) -> Settings:
    return Settings.model_validate({"index": index_path, "weights": weights, **LIMITS})


@pytest.fixture(scope="session")
def default_settings(gallery: Path, default: Matcher, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings with the default network. It needs no PyTorch, which a process takes seconds to import."""
    index = tmp_path_factory.mktemp("default") / "index"
    build(index, BuildRequest([gallery], clusters=CLUSTERS, embedder="ret"), default)
    return Settings.model_validate({"index": index, **LIMITS})


@pytest.fixture(scope="session")
def server(settings: Settings) -> Iterator[Served]:
    with served(settings) as running:
        yield running


@pytest.fixture(scope="session")
def http(server: Served) -> httpx.Client:
    return server.http


@pytest.fixture(scope="session")
def remote(server: Served) -> Iterator[Remote]:
    with Remote(server.url) as connection:
        yield connection


@pytest.fixture(scope="session")
def sketch() -> bytes:
    return encoded(draw_sketch())


@pytest.fixture
def drawn(tmp_path: Path, sketch: bytes) -> Path:
    file = tmp_path / "sketch.png"
    file.write_bytes(sketch)
    return file
