import base64
import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw, ImageFont

from sketch_search.model.engine.parting import SIDE
from sketch_search.model.errors import UndecodableImage, UnsupportedImage
from sketch_search.model.images import Drawing, Preprocessing, Stroke, lab
from sketch_search.model.images.files import OpenedImage, open_dated
from sketch_search.model.search.drawings import LEAST_PLACED
from tests.pictures import difference, drawing, encoded

LINE = '<path d="M 10 10 L 90 40" stroke="black" stroke-width="3"/>'


def svg(inside: str, size: str = 'viewBox="0 0 100 50"') -> bytes:
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<?xml version="1.0"?>\n<svg {spaces} {size}>{inside}</svg>'.encode()


def _drawn(data: bytes) -> OpenedImage:
    return open_dated(data, sketch=True)


def test_an_svg_is_a_sketch_and_no_photo() -> None:
    for size in ('viewBox="0 0 100 50"', 'width="100" height="50px"', 'viewBox="0,0,100,50" width="20cm"'):
        image = _drawn(svg(LINE, size)).image
        assert image.size == (512, 256)
        assert image.getpixel((256, 128)) == (0, 0, 0)
        assert image.getpixel((10, 250)) == (255, 255, 255)
    with pytest.raises(UnsupportedImage, match="not a photo"):
        open_dated(svg(LINE))


STROKE = "stroke-width: 3"
HIDDEN = 'stroke-dasharray="99" stroke-dashoffset="99"'
DRAWS = '<animate {}="{}" attributeName="stroke-dashoffset" from="99" to="0" dur="1s" fill="freeze"/>'
SAME = {
    "classes": f'<style>.st0{{fill:none;stroke:#000;{STROKE}}}</style><path class="st0" d="M 10 10 L 90 40"/>',
    "rules of rank": "<style>g > path { stroke: #000; stroke-width: 3 } path { stroke: red; stroke-width: 9 !ignored }"
    "@media (prefers-color-scheme: dark) { path { stroke: #fff } } @media print { path { stroke-width: 20 } }"
    f"@font-face {{ font-family: x; src: url(x.woff) }}</style><g>{LINE}</g>",
    "a variable": f'<g style="--ink: #000"><path d="M 10 10 L 90 40" style="stroke: var(--ink); {STROKE}"/></g>',
    "a variable of a sheet": "<style>svg { --ink: var(--none, black) } "
    f'path {{ stroke: var(--ink, var(--none, #000)) }}</style><path d="M 10 10 L 90 40" style="{STROKE}"/>',
    "a variable without a value": f'<path d="M 10 10 L 90 40" stroke="var(--ink, #000)" style="{STROKE}"/>',
    "light and dark": '<path d="M 10 10 L 90 40" stroke="red" stroke-width="3" '
    'style="stroke: light-dark(rgb(0, 0, 0), var(--dark, rgb(255, 255, 255)));"/>',
    "colours of CSS 4": f'<path d="M 10 10 L 90 40" style="stroke: rgb(0 0 0 / 100%); {STROKE}"/>',
    "a link": f'<a href="https://example.org/" target="_blank"><g>{LINE}</g></a>',
    "a shadow": f'<filter id="s"><feDropShadow dx="1"/></filter><g filter="url(#s)" style="filter: url(#s)">{LINE}</g>',
    "a transform of CSS": '<g transform="scale(0.5)"><path d="M 0 0 L 40 15" stroke="#000" stroke-width="1.5" '
    'style="transform: translate(20px, 20PX) scale(400%)"/></g>',
    "transforms of a sheet": "<style>@media screen { g > .a { translate: 10px 10px; rotate: -90deg } } "
    '.a.b, p { transform: rotate(0.25turn) !important }</style><g><path class="b a" d="M 0 0 L 80 30" '
    f'stroke="#000" style="{STROKE}"/></g>',
    "a mirror in its own middle": '<path d="M 90 10 L 10 40" stroke="#000" stroke-width="3" '
    'style="transform: scaleX(-1); transform-box: fill-box; transform-origin: center"/>',
    "a turn around the middle": '<path d="M 90 40 L 10 10" stroke="#000" stroke-width="3" transform="rotate(180)" '
    'style="transform-origin: 50% 50%"/>',
    # Of 512 pixels, 3 in 100 are 15.36.
    "a stroke that does not scale": '<g stroke="#000" stroke-width="15.36"><path d="M .1 .1 L .9 .4" '
    'transform="scale(100)" vector-effect="non-scaling-stroke"/></g>',
    "strokes of a sheet that do not scale": "<style>path { vector-effect: non-scaling-stroke; stroke-width: 15.36px }"
    '</style><g style="transform: scale(2)"><path d="M 5 5 L 45 20" stroke="#000"/></g>',
    "a line that draws itself": LINE.replace("/>", f" {HIDDEN}>{DRAWS.format('id', 'b')}</path>"),
    "a line that is drawn from elsewhere": LINE.replace("/>", f' id="a" {HIDDEN}/>') + DRAWS.format("href", "#a"),
    "a line that begins again": LINE.replace(
        "/>",
        f' {HIDDEN}><animate attributeName="stroke-dashoffset" '
        'values="99;0;99" dur="1s" repeatCount="indefinite"/></path>',
    ),
    "lines that appear": f'<g opacity="0"><set attributeName="opacity" to="1" begin="2s"/>{LINE}</g>',
    "a line that grows": '<path d="M 10 10" stroke="#000" stroke-width="3"><animate attributeName="d" '
    'values="M 10 10 L 10 10; M 10 10 L 90 40" dur="1s" fill="freeze"/></path>',
    "a line that draws itself by CSS": "<style>path { stroke-dasharray: 99; stroke-dashoffset: 99; animation: 1s ease "
    f"draw forwards }} @keyframes draw {{ to {{ stroke-dashoffset: 0 }} }}</style>{LINE}",
    "a line that comes by CSS": "<style>path { transform: scale(0); animation: come 1s both } @keyframes come "
    f"{{ from {{ transform: scale(0) }} 100% {{ transform: none }} }}</style>{LINE}",
    "a pencil that leaves": "<style>rect { animation: leave 1s forwards } @keyframes leave { to { opacity: 0 } }"
    f'</style><rect width="9" height="40"/>{LINE}',
    "a choice": "<switch><foreignObject requiredExtensions='a' width='1' height='1'/><g>" + LINE + "</g></switch>",
}


@pytest.mark.parametrize("inside", SAME.values(), ids=SAME)
def test_an_svg_looks_as_in_a_browser(inside: str) -> None:
    assert difference(_drawn(svg(inside)).image, _drawn(svg(LINE)).image) < 0.1


def test_an_svg_is_known_by_its_first_element() -> None:
    plain = _drawn(svg(LINE)).image
    entities = "".join(f'<!ENTITY e{n} "http://ns.example.org/{n}/">' for n in range(40))
    whole = svg(LINE).decode()
    declaration, _, root = whole.partition("\n")
    for text in (
        f"<!-- {'a long comment ' * 200}-->\n{root}",
        f'{declaration}<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd" [{entities}]>{root}',
        root.replace(' xmlns="http://www.w3.org/2000/svg"', ""),
        root.replace("<svg", "<s:svg")
        .replace("</svg", "</s:svg")
        .replace("<path", "<s:path")
        .replace("xmlns=", "xmlns:s="),
    ):
        for data in (text.encode(), gzip.compress(text.encode()), "\ufeff".encode() + text.encode()):
            assert _drawn(data).image == plain
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        assert _drawn(whole.replace('"1.0"', f'"1.0" encoding="{encoding}"').encode(encoding)).image == plain
    for other in ("<html><svg/></html>", "<!-- <svg -->", "<!--" * 9_000, "a <svg>", "<!DOCTYPE a [" * 999):
        with pytest.raises(UnsupportedImage, match="not a supported image type"):
            _drawn(other.encode())
    with pytest.raises(UndecodableImage, match="cut short"):
        _drawn(gzip.compress(svg(LINE))[:-20])


def test_an_svg_has_the_size_that_its_units_say() -> None:
    plain = _drawn(svg(LINE)).image
    for size in (
        'width="26.4583mm" height="13.2292mm"',
        'width="75pt" height="37.5pt"',
        'width="1.0416667in" height="50px"',
    ):
        assert difference(_drawn(svg(LINE, size)).image, plain) < 0.5


def test_a_picture_within_an_svg_is_drawn() -> None:
    drawn = Image.new("RGB", (64, 32), "white")
    drawn.paste("black", (16, 8, 24, 24))
    for kind in ("PNG", "JPEG", "BMP"):
        data = base64.b64encode(encoded(drawn, kind)).decode()
        image = _drawn(svg(f'<image xlink:href="data:image/x;base64,{data}" width="100" height="50"/>')).image
        assert difference(image, drawn.resize((512, 256))) < 12
    inner = base64.b64encode(svg(LINE)).decode()
    with pytest.raises(UnsupportedImage, match="contains a file of type SVG"):
        _drawn(svg(f'<image href="data:image/svg+xml;base64,{inner}" width="100" height="50"/>'))


@pytest.mark.parametrize(
    ("inside", "sentence"),
    [
        ('<text y="20">Words</text>', "nothing but text"),
        ('<image href="photo.png" width="9" height="9"/>', "nothing but pictures of other files"),
        ('<path d="M 0 0 L 9 9" stroke="oklch(40% 0.1 20)"/>', r"oklch\(\)"),
    ],
)
def test_an_svg_that_is_drawn_otherwise_in_a_browser_is_refused_by_its_reason(inside: str, sentence: str) -> None:
    with pytest.raises(UnsupportedImage, match=sentence):
        _drawn(svg(inside))


def test_a_page_of_a_pdf_is_a_sketch(monkeypatch: pytest.MonkeyPatch) -> None:
    blank, page = Image.new("RGB", (200, 100), "white"), Image.new("RGB", (200, 100), "white")
    page.paste("black", (50, 25, 60, 75))
    data = encoded(blank, "PDF", save_all=True, append_images=[page, Image.new("RGB", (200, 100), "gray")])
    with monkeypatch.context() as without:
        without.setitem(__import__("sys").modules, "pypdfium2", None)
        with pytest.raises(UnsupportedImage, match=r"sketch-search\[pdf\]"):
            _drawn(data)
    with pytest.raises(UnsupportedImage, match="not a photo"):
        open_dated(data)
    pytest.importorskip("pypdfium2")
    image = _drawn(data).image
    assert image.size == (768, 384)
    assert difference(image, page.resize((768, 384))) < 3
    for broken in (data[:300], data.replace(b"/Type /Page\n", b"/Type /Nope\n")[:200]):
        with pytest.raises(UndecodableImage, match="PDF"):
            _drawn(broken)


def _written(*lines: str) -> Image.Image:
    sheet = Image.new("RGB", (420, 594), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((60, 60 + 40 * number), line, "black", ImageFont.load_default(26))
    return sheet


_COVER, _DIARY = _written("My notebook"), _written(*["and then we went on, over the hill"] * 9)
_BLANK = Image.new("RGB", (420, 594), "white")


@pytest.mark.parametrize("kind", ["PDF", "TIFF"])
@pytest.mark.parametrize(
    ("before", "number"), [([_COVER], 2), ([_BLANK], 2), ([_DIARY], 2), ([_COVER, _BLANK, _DIARY], 4), ([], 1)]
)
def test_the_page_with_the_drawing_is_taken_or_a_named_one(before: list[Image.Image], number: int, kind: str) -> None:
    pytest.importorskip("pypdfium2")
    page = Image.new("RGB", (420, 594), "white")
    page.paste(drawing("star", 300, 3).convert("RGB"), (60, 120))
    first, *others = pages = [one.copy() for one in (*before, page, _DIARY)]
    data = encoded(first, kind, save_all=True, append_images=others)
    opened = open_dated(data, sketch=True)
    assert opened.page == number
    for named in range(1, len(pages) + 1):
        shown = open_dated(data, sketch=True, page=named)
        assert shown.page == named
        assert difference(shown.image, pages[named - 1].resize(shown.image.size)) < 3
        assert (shown.image == opened.image) == (named == number)
    with pytest.raises(UnsupportedImage, match=rf"has {len(pages)} pages and no page 9"):
        open_dated(data, sketch=True, page=9)


# A star of so many units on a page of other sizes; the page of a PDF begins at the bottom.
STAR = [(0.5, 0.0), (0.8, 1.0), (0.0, 0.4), (1.0, 0.4), (0.2, 1.0), (0.5, 0.0)]


def _on_endless_paper(kind: str, page: tuple[int, int], at: tuple[float, float], side: float) -> bytes:
    points = [(page[0] * at[0] + side * (x - 0.5), page[1] * at[1] + side * (y - 0.5)) for x, y in STAR]
    if kind == "SVG":
        lines = f'<polyline points="{points}" fill="none" stroke="black" stroke-width="{side / 40}"/>'
        ground = f'<rect width="{page[0]}" height="{page[1]}" fill="#fdf6e3"/>'
        text = (ground + lines).translate(str.maketrans("()[]", "    "))
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {page[0]} {page[1]}">{text}</svg>'.encode()
    steps = [f"{x} {page[1] - y} {'l' if number else 'm'}" for number, (x, y) in enumerate(points)]
    stream = f"{side / 40} w {' '.join(steps)} S"
    return (
        "%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj "
        f"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 {page[0]} {page[1]}]/Contents 4 0 R>>endobj "
        f"4 0 obj<</Length {len(stream)}>>stream\n{stream}\nendstream endobj trailer<</Root 1 0 R>>"
    ).encode()


@pytest.mark.parametrize("kind", ["SVG", "PDF"])
@pytest.mark.parametrize(
    ("page", "at", "side"),
    [((14_000, 14_000), (0.5, 0.4), 400), ((14_000, 6_000), (0.98, 0.02), 150), ((900, 6_000), (0.3, 0.9), 40)],
)
def test_a_tiny_drawing_on_endless_paper_is_drawn_as_sharp_as_a_large_one(
    kind: str, page: tuple[int, int], at: tuple[float, float], side: float
) -> None:
    tiny, large = (
        Preprocessing(96).drawing(open_dated(_on_endless_paper(kind, *placed), sketch=True).image)
        for placed in ((page, at, side), ((300, 300), (0.5, 0.5), 240))
    )
    # If it were not drawn again, the least would be 22.
    assert np.abs(tiny.whole.astype(int) - large.whole).mean() < 8
    left, top, right, bottom = tiny.things[0].box
    # Where it lies does not count: it takes a hundredth of the page at most.
    assert (right - left) * (bottom - top) <= LEAST_PLACED
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx(at, abs=0.06)


def test_an_svg_reads_no_file_and_contacts_no_host(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(Image.new("RGB", (10, 10), "red")))
    line = '<path d="M 0 0 L 9 9" stroke="black"/>'
    expected = _drawn(svg(line)).image
    for outside in (
        f'<image href="{secret}" width="100" height="50"/>',
        f'<g><g><image xlink:href="{secret}" width="100" height="50"/></g></g>',
        f'<filter id="f"><feImage href="{secret}"/></filter><rect width="9" height="4" filter="url(#f)" fill="none"/>',
        f'<use href="{secret}#a"/>',
        f'<style>@import url("{secret}"); rect {{ fill: url({secret}) }}</style>',
        '<text x="1" y="20">words need the fonts of this machine</text>',
        f'<image href="{secret.as_uri()}" width="100" height="50"/>',
        "<foreignObject><p>a page</p></foreignObject>",
    ):
        assert _drawn(svg(outside + line)).image == expected
    entity = f'<!DOCTYPE svg [<!ENTITY x SYSTEM "{secret}">]>'.encode()
    with pytest.raises(UndecodableImage):
        _drawn(svg(line + "&x;").replace(b"<svg", entity + b"<svg"))


@pytest.mark.parametrize(
    ("inside", "size"),
    [
        ("<path/>" * 100_001, 'viewBox="0 0 9 9"'),
        (
            '<g id="a0"><path/></g>'
            + "".join(f'<g id="a{n}">' + f'<use href="#a{n - 1}"/>' * 10 + "</g>" for n in range(1, 9)),
            'viewBox="0 0 9 9"',
        ),
        ('<g id="a"><use href="#a"/></g>', 'viewBox="0 0 9 9"'),
        ("<g>" * 200 + "</g>" * 200, 'viewBox="0 0 9 9"'),
        ("<path/>", 'viewBox="0 0 1 1e30"'),
        ("<path/>", 'viewBox="0 0 nan 1"'),
        ("<path/>", 'width="100%"'),
        ("<path>", 'viewBox="0 0 9 9"'),
    ],
    ids=["many", "many by use", "itself", "deep", "long", "no number", "no size", "damaged"],
)
def test_an_svg_that_would_cost_too_much_is_refused(inside: str, size: str) -> None:
    with pytest.raises(UndecodableImage, match="SVG"):
        _drawn(svg(inside, size))


OURS = Preprocessing(112)
RED, GREEN = (208, 32, 32), (32, 144, 48)


def paper(colour: str = "white") -> Image.Image:
    return Image.new("RGB", (400, 200), colour)


def with_squares(
    *lefts: int, ink: tuple[int, int, int] = (0, 0, 0), fill: tuple[int, int, int] | None = None
) -> Image.Image:
    picture = paper()
    for left in lefts:
        ImageDraw.Draw(picture).rectangle([left, 60, left + 80, 140], outline=ink, fill=fill, width=4)
    return picture


def in_halves(drawing: Drawing, middle: float = 0.5) -> Drawing:
    ink = drawing.darkness(SIDE) > 50
    return drawing.divide(np.where(ink, np.arange(SIDE) > middle * SIDE, -1).astype(np.int64))


def test_things_of_a_divided_drawing_have_their_boxes_and_are_prepared_as_if_each_stood_alone() -> None:
    both = in_halves(OURS.drawing(with_squares(20, 300)))
    assert [thing.box for thing in both.things] == [
        pytest.approx((left / 400, 0.3, (left + 81) / 400, 0.705)) for left in (20, 300)
    ]
    for thing, left in zip(both.things, (20, 300), strict=True):
        assert np.array_equal(thing.pixels, OURS.pixels(with_squares(left), "sketch"))
    assert np.array_equal(both.whole, OURS.pixels(with_squares(20, 300), "sketch"))


def test_a_drawing_is_one_thing_until_it_is_divided_and_with_all_its_ink_in_one_thing() -> None:
    whole = OURS.drawing(drawing("star", 256, 1))
    for one in (whole, whole.divide(np.zeros((SIDE, SIDE), np.int64))):
        (thing,) = one.things
        assert np.array_equal(thing.pixels, OURS.pixels(drawing("star", 256, 1), "sketch"))
        assert thing.colours == ()


def test_each_stroke_belongs_to_the_thing_that_most_of_its_ink_is_in() -> None:
    lines = [
        Stroke(((left / 400, 0.5), ((left + 80) / 400, 0.5)), 0.01, word=word)
        for left, word in ((20, ""), (300, "car"))
    ]
    hidden = Stroke(((0.5, 2.0),))
    both = in_halves(replace(OURS.drawing(with_squares(20, 300)), strokes=(*lines, hidden)))
    assert [thing.strokes for thing in both.things] == [(0,), (1,)]
    assert both.words == ("", "car")


def test_a_picture_without_strokes_has_dots_on_the_ink_of_each_thing() -> None:
    both = in_halves(OURS.drawing(with_squares(20, 300)))
    for thing in both.things:
        dots = np.array([both.strokes[number].points[0] for number in thing.strokes])
        assert [*dots.min(axis=0), *dots.max(axis=0)] == pytest.approx(thing.box, abs=0.015)


def test_each_thing_has_the_colours_of_its_own_ink() -> None:
    picture = Image.fromarray(
        np.minimum(*(np.asarray(with_squares(left, ink=ink)) for left, ink in ((20, RED), (300, GREEN))))
    )
    left, right = in_halves(OURS.drawing(picture)).things
    for thing, ink in ((left, RED), (right, GREEN)):
        ((*colour, share),) = thing.colours
        assert colour == pytest.approx(lab(np.array(ink) / 255), abs=2)
        assert share == 1


def test_coloured_strokes_say_a_colour_and_black_ones_or_those_on_coloured_paper_do_not() -> None:
    (red,) = OURS.drawing(with_squares(20, ink=RED)).things
    ((*colour, share),) = red.colours
    assert colour == pytest.approx(lab(np.array(RED) / 255), abs=2)
    assert share == 1
    chalk = Image.new("RGB", (400, 200), (0, 90, 60))
    ImageDraw.Draw(chalk).rectangle([20, 60, 100, 140], outline="white", width=4)
    assert OURS.drawing(chalk).things[0].colours == ()
    assert OURS.drawing(with_squares(20)).things[0].colours == ()


@pytest.mark.parametrize("pen", ["#8a8a8a", "#c2c2c2", "#d9c7a0", "#8cc4e8", "#e58fb0"])
def test_pale_and_grey_pens_of_the_page_have_their_colour_beside_black_and_pencils_have_none(pen: str) -> None:
    picture = with_squares(20)
    ImageDraw.Draw(picture).rectangle([300, 60, 380, 140], outline=pen, width=4)
    black, pale = in_halves(OURS.drawing(picture)).things
    assert black.colours == ()
    ((*colour, share),) = pale.colours
    assert colour == pytest.approx(lab(np.array(ImageColor.getrgb(pen)) / 255), abs=2)
    assert share == 1
    assert OURS.drawing(with_squares(20, ink=(0x88, 0x88, 0x88))).things[0].colours == ()


def test_a_filled_area_says_its_colour_and_leaves_its_outline_to_the_network() -> None:
    (filled,) = OURS.drawing(picture := with_squares(20, fill=GREEN)).things
    ((*colour, _),) = filled.colours
    assert colour == pytest.approx(lab(np.array(GREEN) / 255), abs=2)
    assert filled.pixels[56, 56].tolist() == [255, 255, 255]
    assert (filled.pixels[:, 56] < 128).any()
    assert np.array_equal(filled.pixels, OURS.pixels(picture, "sketch")), "for training, too"


def test_pictures_of_things_become_one_drawing_that_looks_like_all_of_them() -> None:
    parts = [OURS.drawing(with_squares(left)) for left in (20, 300)]
    joined = Drawing.joined(parts)
    assert [thing.box for thing in joined.things] == [part.things[0].box for part in parts]
    whole = OURS.pixels(with_squares(20, 300), "sketch")
    # The strokes are where they are in a picture of both, to a pixel or two.
    assert np.abs(joined.whole.astype(int).mean(axis=(0, 2)) - whole.astype(int).mean(axis=(0, 2))).mean() < 12
    other = OURS.drawing(with_squares(20).resize((100, 50)))
    with pytest.raises(ValueError, match="the same size"):
        Drawing.joined([*parts, other])
