"""Thumbnails, and the cache that keeps some."""

from __future__ import annotations

import io

from PIL import Image

from service.photos import ThumbnailCache, thumbnail
from tests.pictures import drawing, oriented


def test_a_thumbnail_keeps_the_shape_and_is_upright() -> None:
    wide = drawing("house", size=64).resize((128, 64))
    with Image.open(io.BytesIO(thumbnail(oriented(wide, 6), 32))) as small:
        assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (32, 16))
        assert not small.getexif()


def test_the_cache_keeps_what_was_asked_for_last_up_to_its_size() -> None:
    cache = ThumbnailCache(capacity=10)
    for key in ("a", "b"):
        cache.keep(key, key.encode() * 4)
    assert cache.find("a") == b"aaaa"
    cache.keep("c", b"cccc")  # b has not been asked for longest
    assert [cache.find(key) for key in ("a", "b", "c")] == [b"aaaa", None, b"cccc"]


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    cache = ThumbnailCache(capacity=3)
    cache.keep("key", b"long")
    assert cache.find("key") is None
