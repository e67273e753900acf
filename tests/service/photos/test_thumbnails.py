"""Thumbnails, and the cache that keeps some."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from model.errors import ImageError
from service.photos.thumbnails import ThumbnailCache, thumbnail
from tests.pictures import drawing, encoded, oriented


def test_a_thumbnail_keeps_the_shape_and_is_upright() -> None:
    wide = drawing("house", size=64).resize((128, 64))
    with Image.open(io.BytesIO(thumbnail(oriented(wide, 6), 32))) as small:
        assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (32, 16))
        assert not small.getexif()


def test_a_small_photo_is_not_enlarged() -> None:
    with Image.open(io.BytesIO(thumbnail(encoded(drawing("star", size=20)), 256))) as small:
        assert small.size == (20, 20)


def test_what_is_no_photo_has_no_thumbnail() -> None:
    with pytest.raises(ImageError):
        thumbnail(b"text", 256)


def test_the_cache_keeps_what_was_asked_for_last_up_to_its_size() -> None:
    cache, made = ThumbnailCache(capacity=10), []

    def get(key: str) -> bytes:
        def make() -> bytes:
            made.append(key)
            return key.encode() * 4

        return cache.get(key, make)

    assert get("a") == get("a") == b"aaaa"
    get("b")
    get("a")
    get("c")  # b has not been asked for longest
    get("a")
    assert made == ["a", "b", "c"]
    get("b")
    assert made == ["a", "b", "c", "b"]


def test_what_is_larger_than_the_cache_is_made_and_not_kept() -> None:
    cache, made = ThumbnailCache(capacity=3), []
    for _ in range(2):
        assert cache.get("key", lambda: made.append(1) or b"long") == b"long"  # type: ignore[func-returns-value]
    assert len(made) == 2


def test_no_thread_waits_while_another_makes_a_thumbnail() -> None:
    cache = ThumbnailCache(capacity=100)
    # Made while another is being made: with the lock held meanwhile, this would never end.
    assert cache.get("a", lambda: cache.get("b", lambda: b"small")) == b"small"
