from collections.abc import Iterator

import pytest

from sketch_search.service.settings import Settings
from tests.service.served import Served, served


@pytest.fixture(scope="package")
def settings(settings: Settings) -> Settings:
    """Drawings are looked at in one variant, so that no further search follows when the pen rests."""
    return settings.model_copy(update={"variants": 1})


@pytest.fixture(scope="package")
def server(settings: Settings) -> Iterator[Served]:
    with served(settings) as running:
        yield running


@pytest.fixture(scope="package", autouse=True)
def only_copies_are_folded() -> Iterator[None]:
    """The page folds near duplicates, and to a network with random weights all pictures are much the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sketch_search.model.ranking.SAME", 0.9999)
        yield
