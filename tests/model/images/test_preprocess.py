import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from sketch_search.indexer.samples import SKETCHED, draw_photo
from sketch_search.model.errors import BlankSketch
from sketch_search.model.images.files import open_image
from sketch_search.model.images.preprocess import (
    MAX_PARTS,
    Frame,
    Preprocessing,
    cut,
    find_parts,
    prepare_photo,
    prepare_released_sketch,
)
from tests.pictures import SHAPES, drawing, encoded, odd_file, page, panorama, photo
from tests.requirements import needs_shared_data
from tests.shared_data import archive

OURS, RELEASED = Preprocessing(), Preprocessing(released=True)
both = pytest.mark.parametrize("preprocessing", [OURS, RELEASED], ids=["ours", "released"])


def with_noise(picture: Image.Image, sigma: float) -> Image.Image:
    noise = np.random.RandomState(0).normal(0, sigma, (picture.height, picture.width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def ellipse(box: tuple[int, int, int, int]) -> Image.Image:
    sketch = Image.new("RGB", (256, 256), (240, 240, 240))
    ImageDraw.Draw(sketch).ellipse(box, outline=(90, 20, 100), width=3)
    return sketch


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(encoded(picture, "JPEG", quality=quality))).convert("RGB")


def ink_box(pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    y, x = np.nonzero(pixels[:, :, 0] < 128)
    return int(y.min()), int(y.max()) + 1, int(x.min()), int(x.max()) + 1


def released(image: Image.Image) -> NDArray[np.uint8]:
    """Returns the released recipe, with OpenCV, for dark ink on light paper."""
    pixels = np.asarray(image)
    y, x = np.where(pixels.astype(int).sum(axis=2) <= 300)
    height, width = pixels.shape[:2]
    crop = pixels[max(0, y.min() - 10) : min(height, y.max() + 10), max(0, x.min() - 10) : min(width, x.max() + 10)]
    ratio = crop.shape[0] / crop.shape[1]
    new = (int(224 / ratio), 224) if ratio > 1 else (224, int(224 * ratio))
    scaled = cv2.resize(crop, new, interpolation=cv2.INTER_LINEAR)
    rest = 224 - scaled.shape[0], 224 - scaled.shape[1]
    before = rest[0] // 2, rest[1] // 2
    sides = [(half, whole - half) for half, whole in zip(before, rest, strict=True)]
    return np.pad(scaled, (*sides, (0, 0)), constant_values=crop.max())


@pytest.mark.parametrize(
    "sketch",
    [
        *(drawing(shape, size, seed=size) for shape in SHAPES for size in (97, 256, 800)),
        # At the edges of the picture margins are clamped.
        *(ellipse(box) for box in ((0, 0, 90, 41), (150, 3, 190, 183), (200, 200, 256, 256), (30, 30, 32, 130))),
    ],
)
def test_a_released_sketch_is_opencv_s_within_one_level(sketch: Image.Image) -> None:
    ours = prepare_released_sketch(sketch, 224).astype(int)
    assert np.abs(ours - released(sketch)).max() <= 1


def test_a_photo_is_squashed_with_pillow_s_bicubic_filter() -> None:
    picture = photo("star").crop((0, 0, 256, 140))
    assert np.array_equal(prepare_photo(picture, 224), np.asarray(picture.resize((224, 224))))
    assert np.array_equal(OURS.pixels(picture, "photo"), RELEASED.pixels(picture, "photo"))


def test_photos_alone_are_opened_reduced_and_never_for_the_released_networks() -> None:
    data = encoded(photo("house", 2 * 3 * 64), "JPEG")
    small, released = replace(OURS, image_size=64), replace(RELEASED, image_size=64)
    assert small.open(data, "photo").size == (192, 192)
    assert small.open(data, "sketch") == open_image(data, sketch=True)
    for whole in (released.open(data, "photo"), OURS.open(data, "photo")):
        assert whole == open_image(data)
    seen = small.pixels(small.open(data, "photo"), "photo").astype(int)
    assert np.abs(seen - small.pixels(open_image(data), "photo")).max() <= 4


WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@both
@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        *((ink, WHITE) for ink in ((200, 200, 200), (243, 243, 243), (255, 255, 0))),
        *((WHITE, BLACK), ((40, 60, 150), (240, 225, 190))),
        *(((230, 230, 230), (200, 180, 160)), ((250, 240, 90), (20, 60, 30))),
    ],
)
def test_ink_is_cropped(preprocessing: Preprocessing, ink: tuple[int, int, int], paper: tuple[int, int, int]) -> None:
    def drawn(ink: tuple[int, int, int], paper: tuple[int, int, int]) -> NDArray[np.uint8]:
        sketch = Image.new("RGB", (400, 300), paper)
        ImageDraw.Draw(sketch).rectangle([300, 200, 349, 249], outline=ink, width=4)
        return preprocessing.pixels(sketch, "sketch")

    prepared, expected = drawn(ink, paper), drawn(BLACK, WHITE)
    if preprocessing.released and sum(ink) <= 300 < sum(paper):
        # The released network gets its colours as they are, so only the place can be compared.
        assert np.abs(np.subtract(ink_box(prepared), ink_box(expected))).max() <= 1
    else:
        assert np.abs(prepared.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("shape", SHAPES)
def test_our_sketch_is_centred_dark_on_white_and_fills_the_square(shape: str) -> None:
    canvas = Image.new("RGB", (700, 500), "white")
    canvas.paste(drawing(shape, 200), (450, 20))
    pixels = OURS.pixels(canvas, "sketch")
    top, bottom, left, right = ink_box(pixels)
    assert pixels.shape == (224, 224, 3)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert max(bottom - top, right - left) in range(196, 206)
    assert abs(top + bottom - 224) <= 4
    assert abs(left + right - 224) <= 4
    assert (pixels[:8] == 255).all()


@pytest.mark.parametrize("sigma", [2.0, 5.0])
def test_noise_and_compression_leave_the_paper_white(sigma: float) -> None:
    sketch = drawing("house", 400, ink=(50, 50, 60), paper=(225, 220, 210))
    clean = OURS.pixels(sketch, "sketch")
    rough = OURS.pixels(as_jpeg(with_noise(sketch, sigma), 50), "sketch")
    assert np.abs(np.subtract(ink_box(rough), ink_box(clean))).max() <= 4
    assert abs((rough == 255).mean() - (clean == 255).mean()) < 0.03


def test_a_hair_line_on_a_huge_canvas_stays_black() -> None:
    canvas = Image.new("RGB", (6000, 5000), "white")
    ImageDraw.Draw(canvas).line([(100, 100), (5800, 4700), (200, 4900), (100, 100)], fill=(120, 120, 120), width=1)
    pixels = OURS.pixels(canvas, "sketch")
    assert pixels.min() == 0
    assert (pixels < 128).mean() > 0.01


def test_specks_of_dust_do_not_widen_the_crop() -> None:
    sketch = drawing("circle", 256)
    dusty = sketch.copy()
    dusty.putpixel((1, 1), (0, 0, 0))
    assert np.array_equal(OURS.pixels(sketch, "sketch"), OURS.pixels(dusty, "sketch"))


def test_a_frame_is_not_taken_for_the_paper() -> None:
    framed = Image.new("RGB", (300, 300), "black")
    framed.paste(drawing("star", 280), (10, 10))
    pixels = OURS.pixels(framed, "sketch")
    assert np.median(pixels) == 255


@pytest.mark.parametrize(
    "preprocessing", [OURS, RELEASED, Preprocessing(padded=True)], ids=["ours", "released", "padded"]
)
@pytest.mark.parametrize(
    "blank",
    [
        Image.new("RGB", (64, 64), "white"),
        Image.new("RGB", (64, 64), "black"),
        Image.new("RGB", (64, 64), "red"),
        Image.new("RGB", (300, 20), (240, 225, 190)),
        Image.new("RGB", (1, 1), "black"),
        Image.new("RGBA", (50, 50), (0, 0, 0, 0)),
        with_noise(Image.new("RGB", (200, 200), (128, 120, 110)), 3),
        as_jpeg(with_noise(Image.new("RGB", (200, 200), (220, 220, 220)), 4), 40),
    ],
    ids=["white", "black", "red", "tinted", "one pixel", "transparent", "noise", "jpeg noise"],
)
def test_a_blank_sketch_is_reported(preprocessing: Preprocessing, blank: Image.Image) -> None:
    with pytest.raises(BlankSketch, match="nothing is drawn"):
        preprocessing.prepare(blank, "sketch")


def test_a_darker_pen_is_asked_for_only_where_a_paler_line_is_seen() -> None:
    pale = Image.new("RGB", (64, 64), "white")
    pale.paste((248, 248, 248), (20, 30, 44, 34))
    with pytest.raises(BlankSketch, match="darker pen"):
        OURS.prepare(pale, "sketch")


@pytest.mark.parametrize("name", ["white on nothing.png", "white on nothing.webp", "white on nothing, 16 bits.png"])
def test_white_strokes_on_a_transparent_sheet_are_white_strokes_on_black(name: str) -> None:
    sketch = odd_file(name)
    shape = "house" if "16 bits" in name else "star"
    seen = OURS.pixels(open_image(sketch, sketch=True), "sketch")
    assert np.array_equal(seen, OURS.pixels(ImageOps.invert(drawing(shape)), "sketch"))
    assert np.asarray(open_image(sketch)).min() == 255
    with Image.open(io.BytesIO(sketch)) as image:
        assert np.array_equal(OURS.pixels(image, "sketch"), seen)


def test_the_fingerprint_of_a_side_changes_when_its_pixels_would() -> None:
    others = [Preprocessing(padded=True), Preprocessing(image_size=64), Preprocessing(mean=(0.4, 0.5, 0.5))]
    others.append(Preprocessing(std=(1, 1, 1)))
    for modality in ("sketch", "photo"):
        own = OURS.fingerprint(modality)
        assert len({own, *(other.fingerprint(modality) for other in (RELEASED, *others))}) == 6
        assert own == Preprocessing().fingerprint(modality)
        assert len(bytes.fromhex(own)) == 32


CASES = Path(__file__).parents[2] / "cases"


def overlap(one: Frame, other: Frame) -> float:
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
