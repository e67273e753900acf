from contextlib import nullcontext
from pathlib import Path

import pytest

from sketch_search import model
from sketch_search.indexer.building import staging
from sketch_search.model.decoding import Decoders
from tests.indexer.galleries import Collection, save_photos
from tests.networks import tiny_checkpoint


@pytest.fixture(scope="session")
def matcher(weights: Path) -> model.Matcher:
    return model.load(weights, dtype="float32")


@pytest.fixture(scope="session")
def other_matcher(tmp_path_factory: pytest.TempPathFactory) -> model.Matcher:
    """A second checkpoint, to be refused where the first is expected."""
    return model.load(tiny_checkpoint(tmp_path_factory.mktemp("weights") / "other.safetensors", seed=1))


@pytest.fixture
def own_decoders() -> None:
    """Marks tests whose builds are to start decoding processes of their own."""


@pytest.fixture(autouse=True)
def shared_decoders(decoders: Decoders, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of a test take decoding processes that are there: to start one takes longer than a small build.

    What modules build once, and what programs build, starts its own, as users' builds do.
    """
    if "own_decoders" not in request.fixturenames:
        monkeypatch.setattr(staging, "Decoders", lambda most: nullcontext(decoders))


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory, matcher: model.Matcher, decoders: Decoders) -> Collection:
    """A collection with an index of three clusters, for all tests: no test may change the photos or this index."""
    folder = tmp_path_factory.mktemp("built")
    collection = Collection(save_photos(folder / "photos", 12), folder / "index", matcher)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "Decoders", lambda most: nullcontext(decoders))
        collection.build()
    return collection


@pytest.fixture
def copied(built_once: Collection, tmp_path: Path) -> Collection:
    """The photos of all tests, which stay as they are, and an index of them for this test to change."""
    return built_once.copied(tmp_path)


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    return save_photos(tmp_path / "photos", 12)


@pytest.fixture
def index_path(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def collection(gallery: Path, index_path: Path, matcher: model.Matcher) -> Collection:
    return Collection(gallery, index_path, matcher)


@pytest.fixture
def built(collection: Collection) -> Collection:
    collection.build()
    return collection
