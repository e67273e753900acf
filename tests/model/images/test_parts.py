"""Parts of photos: pictures on a page, views of a panorama, and the seam of what goes all around."""

from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from sketch_search.indexer.samples import SKETCHED, draw_photo
from sketch_search.model.images import open_image
from sketch_search.model.images.preprocess import MAX_PARTS, Frame, cut, find_parts
from tests.pictures import page, panorama
from tests.requirements import needs_shared_data
from tests.shared_data import archive

CASES = Path(__file__).parents[2] / "cases"


def overlap(one: Frame, other: Frame) -> float:
    """Returns the share that two frames have in common of what they cover together."""
    left, top = (max(one[side], other[side]) for side in (0, 1))
    right, bottom = (min(one[side], other[side]) for side in (2, 3))
    common = max(0, right - left) * max(0, bottom - top)
    return common / (sum((frame[2] - frame[0]) * (frame[3] - frame[1]) for frame in (one, other)) - common)


def test_the_four_photos_of_an_album_page_are_found() -> None:
    found = find_parts(Image.open(CASES / "58_photo_album_page.jpg"))
    places = [(left, top, left + 250, top + 250) for top in (100, 440) for left in (35, 315)]
    assert min(overlap(*pair) for pair in zip(sorted(found), sorted(places), strict=True)) > 0.9


@pytest.mark.parametrize(
    ("count", "columns", "options"),
    [
        (6, 2, {}),
        (2, 1, {"margin": 90}),
        (6, 3, {"ground": "#1a1a1c"}),
        (4, 2, {"tilt": 2}),
        (6, 2, {"tilt": -1.5}),
        (9, 3, {"ground": "white", "gap": 6, "margin": 0}),
        (12, 4, {"ground": "black", "gap": 8, "margin": 8}),
    ],
    ids=["six on paper", "two", "black card", "tilted", "tilted back", "collage", "contact sheet"],
)
def test_pictures_on_even_ground_are_found(count: int, columns: int, options: dict[str, object]) -> None:
    scanned, places = page(SKETCHED[:count], columns, **options)  # type: ignore[arg-type]
    found = find_parts(scanned)
    assert len(found) == count
    assert all(max(overlap(place, frame) for frame in found) > 0.8 for place in places)


def test_ordinary_photos_have_no_parts() -> None:
    portrait = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    photos = [Image.open(portrait), *(draw_photo(thing, number) for thing in SKETCHED for number in range(1, 6))]
    sheet = Image.new("RGB", (800, 600), "white")
    sheet.paste(draw_photo("cat", 1).resize((300, 300)), (250, 150))
    blocks = Image.new("RGB", (800, 600), "white")
    for number, colour in enumerate(("red", "blue", "green")):
        blocks.paste(colour, (40 + 250 * number, 100, 250 + 250 * number, 500))
    assert [find_parts(photo) for photo in (*photos, sheet, blocks)] == [()] * (len(photos) + 2)


@needs_shared_data
def test_at_most_one_in_500_of_real_photos_that_are_not_wide_has_parts() -> None:
    names = sorted((archive("caltech101") / "caltech101" / "photo").rglob("*.jpg"))
    photos = [photo for photo in map(open_image, names) if photo.width <= 2.5 * photo.height]
    assert len(photos) > 1000
    assert sum(bool(find_parts(photo)) for photo in photos) <= len(photos) / 500


@pytest.mark.parametrize(("width", "count"), [(500, 0), (520, 3), (1400, 7), (1700, 8), (40_000, 8)])
def test_wide_photos_are_divided_into_views_that_overlap(width: int, count: int) -> None:
    frames = find_parts(Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, width, 3), np.uint8)))
    assert len(frames) == count <= MAX_PARTS
    if frames:
        assert (frames[0][0], frames[-1][2]) == (0, width)
        assert {frame[1::2] for frame in frames} == {(0, 200)}
        overlaps = [left[2] - right[0] for left, right in pairwise(frames)]
        assert min(overlaps) >= 0.3 * (frames[0][2] - frames[0][0])


def test_a_photo_that_goes_all_around_is_also_looked_at_across_its_seam() -> None:
    # Its left and right edges are the middle of a photo.
    turned = panorama(("cat", "umbrella"), turned=100)
    frames = find_parts(turned)
    assert frames[-1][0] < 400 < frames[-1][2]
    seam = np.asarray(cut(turned, frames[-1]))[:, 400 - frames[-1][0] - 100 :][:, :200]
    assert np.array_equal(seam, np.asarray(panorama(("cat", "umbrella")))[:, 200:])
    assert find_parts(panorama(("cat", "umbrella"))) == ()
