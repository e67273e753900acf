from __future__ import annotations

import struct

import pytest
from PIL import Image

from model.errors import CostlyImage
from model.images.bounds import MOST_PARTS, MOST_SCANS
from model.images.files import open_image
from tests.bombs import BOMBS, Bomb, block_bomb, chunk_bomb, scan_bomb, segment_bomb, strip_bomb
from tests.pictures import encoded, photo


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.name)
def test_a_bomb_is_refused_for_its_count(bomb: Bomb) -> None:
    with pytest.raises(CostlyImage, match=r"has more than [0-9,]+ \w+"):
        open_image(bomb.make())


def test_as_many_parts_as_allowed_are_decoded() -> None:
    assert open_image(scan_bomb(MOST_SCANS - 1, 64)).size == (64, 64)
    with pytest.raises(CostlyImage, match="100 scans"):
        open_image(scan_bomb(MOST_SCANS, 64))
    assert open_image(strip_bomb(MOST_PARTS, 1)).size == (1, MOST_PARTS)
    with pytest.raises(CostlyImage, match="65,536 strips"):
        open_image(strip_bomb(MOST_PARTS + 1, 1))
    # Each of these files has a few parts besides, and each of the GIF's extensions counts twice.
    for make, parts in ((segment_bomb, 1), (chunk_bomb, 1), (block_bomb, 2)):
        assert open_image(make((MOST_PARTS - 20) // parts)).size == (64, 64)
        with pytest.raises(CostlyImage):
            open_image(make(MOST_PARTS // parts + 1))


def test_scans_of_thumbnails_and_of_further_pictures_do_not_count() -> None:
    jpeg = encoded(photo("house", 64), "JPEG")
    thumbnails = b"\xff\xe1" + struct.pack(">H", 2 + 4000) + b"\xff\xda" * 2000
    whole = jpeg[:2] + thumbnails + jpeg[2:] + jpeg * 200
    assert open_image(whole) == open_image(jpeg)


def test_big_tiffs_and_tiles_are_counted_too() -> None:
    tiles = struct.pack("<HHQ8x", 324, 16, MOST_PARTS + 1)
    big = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 1) + tiles + bytes(8)
    with pytest.raises(CostlyImage, match="tiles"):
        open_image(big)
    turned = b"MM\0*" + struct.pack(">IHHHII", 8, 1, 324, 4, MOST_PARTS + 1, 0) + bytes(4)
    with pytest.raises(CostlyImage, match="tiles"):
        open_image(turned)


def test_a_picture_of_ordinary_size_has_few_parts() -> None:
    picture = Image.effect_noise((3000, 2000), 90).convert("RGB")
    for kind, options in (("JPEG", {"progressive": True}), ("PNG", {"compress_level": 1}), ("TIFF", {})):
        assert open_image(encoded(picture, kind, **options)).size == (3000, 2000)
