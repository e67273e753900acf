from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.searching import Searcher, searching

WORDS = (("dog", "hound"), ("cat",), ("sea lion",), ("pick-up", "pick-up truck"), ("leaf",))


@pytest.fixture(scope="package")
def diffusing(tmp_path_factory: pytest.TempPathFactory, gallery: Path) -> Iterator[Searcher]:
    with searching(gallery, tmp_path_factory.mktemp("diffusing"), words=WORDS, diffusion=0.2) as searcher:
        yield searcher


@pytest.fixture(scope="package")
def plain(tmp_path_factory: pytest.TempPathFactory, gallery: Path) -> Iterator[Searcher]:
    with searching(gallery, tmp_path_factory.mktemp("plain"), words=WORDS) as searcher:
        yield searcher


@pytest.fixture(scope="package", params=["diffusing", "plain"])
def either(request: pytest.FixtureRequest) -> Searcher:
    return request.getfixturevalue(request.param)
