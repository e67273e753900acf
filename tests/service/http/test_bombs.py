"""Sketches that would take minutes to decode, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from service.settings import Settings
from tests.bombs import BOMBS, Bomb
from tests.service.served import asked
from tests.service.talk import error


@pytest.fixture(scope="module")
def open_to_all(settings: Settings) -> Iterator[httpx.Client]:
    """A server with the default limits of sketches."""
    defaults = Settings.model_fields
    limits = {name: defaults[name].default for name in ("max_pixels", "max_upload_bytes")}
    with asked(settings.model_copy(update=limits)) as connection:
        yield connection


@pytest.mark.parametrize(
    ("path", "bomb"),
    [*(("/search", bomb) for bomb in BOMBS), ("/explain?photo=1", BOMBS[0])],
    ids=lambda one: getattr(one, "name", one),
)
def test_a_bomb_is_refused_with_a_sentence(open_to_all: httpx.Client, path: str, bomb: Bomb) -> None:
    answer = open_to_all.post(path, content=bomb.make())
    assert error(answer) == (422, "costly_image")
    assert "far more than a picture needs" in answer.json()["error"]["message"]
