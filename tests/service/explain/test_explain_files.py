import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageColor

import model
from indexer import Request, build, open_index
from model.errors import Refusal
from service.commands import main
from service.commands.explain import explain
from service.errors import BadInvocation, BadSearch
from service.explain.files import _COLOURS, _GAP
from service.schemas.explain import ExplainResponse
from service.settings import Settings
from tests.pictures import drawing, encoded, photo
from tests.searching import Searcher

SHAPES = ("circle", "star")


@dataclass(frozen=True)
class Place:
    """The searcher of an index of two folders of shapes, its photos, its settings, and sketches of both shapes."""

    searcher: Searcher
    photos: Path
    settings: Settings
    sketches: tuple[Path, ...]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("explained")
    sketches = []
    for shape in SHAPES:
        for half in ("photos", "sketches"):
            (root / half / shape).mkdir(parents=True)
        for seed in range(4):
            photo(shape, 96, seed).save(root / "photos" / shape / f"{seed}.png")
        sketches.append(root / "sketches" / shape / "0.png")
        drawing(shape, 128).save(sketches[-1])
    matcher = model.load(weights)
    build(root / "index", Request([root / "photos"], clusters=2, embedder="ret"), matcher)
    settings = Settings(index=root / "index", weights=weights)
    with open_index(root / "index", matcher) as index:
        yield Place(Searcher(index, matcher), root / "photos", settings, tuple(sketches))


def read(folder: Path) -> ExplainResponse:
    return ExplainResponse.model_validate_json((folder / "explanation.json").read_bytes())


def test_an_explanation_is_a_picture_for_each_photo_and_all_data(place: Place, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    document = why(place, out, "circle/1.png", "star/2.png")
    assert sorted(file.name for file in out.iterdir()) == ["1.png", "2.png", "explanation.json"]
    assert (document.grid, document.model) == (4, place.searcher.matcher.config.name)
    assert [one.paths for one in document.photos] == [("circle/1.png",), ("star/2.png",)]
    for number, one in enumerate(document.photos, 1):
        assert one.influence
        assert [len(near.paths) for near in one.nearest] == [1] * len(one.nearest) != []
        with Image.open(out / f"{number}.png") as picture:
            coloured = {ImageColor.getrgb(colour) for colour in _COLOURS} & {colour for _, colour in _colours(picture)}
            assert len(coloured) == min(len({match.photo_cell for match in one.matches}), len(_COLOURS)) > 0
            assert picture.width > 2 * picture.height


def _colours(picture: Image.Image) -> list[tuple[int, tuple[int, ...]]]:
    found = picture.getcolors(picture.width * picture.height)
    assert found is not None
    return [(count, colour) for count, colour in found if isinstance(colour, tuple)]


def why(place: Place, folder: Path, *photos: str, like: str | None = None, drawn: bool = True) -> ExplainResponse:
    """Runs the command for these photos, beside the first sketch or without one, and returns what it has written."""
    assert explain(place.settings, place.sketches[0] if drawn else None, photos, folder, like=like, kind="sketch") == 0
    return read(folder)


def test_photos_are_named_by_id_as_results_show_them_or_by_where_they_are(place: Place, tmp_path: Path) -> None:
    number = place.searcher.gallery.photo_at("circle/1.png").id
    named = str(number), "circle/1.png", str(place.photos / "circle" / "1.png")
    assert [one.id for one in why(place, tmp_path / "why", *named).photos] == [number] * 3
    photo("star", 96, 9).save(tmp_path / "stranger.png")
    with pytest.raises(BadInvocation, match=r"stranger\.png"):
        why(place, tmp_path, str(tmp_path / "stranger.png"))


def test_why_photos_are_like_one_of_the_index_is_said_without_it(place: Place, tmp_path: Path) -> None:
    document = why(place, tmp_path, like="circle/1.png", drawn=False)
    assert (len(document.photos), document.method) == (3, "ret")
    assert all("circle/1.png" not in one.paths for one in document.photos)
    assert all("circle/1.png" not in near.paths for near in document.nearest)
    with pytest.raises(BadSearch, match="nothing to search by"):
        why(place, tmp_path, drawn=False)


@pytest.mark.parametrize("name", ["1.png", "explanation.json"])
def test_nothing_is_written_through_a_symbolic_link(place: Place, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").write_text("keep this")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "mine")
    with pytest.raises(Refusal, match="is a symbolic link"):
        why(place, tmp_path / "out")
    assert (tmp_path / "mine").read_text() == "keep this"


def test_photos_that_a_search_found_are_explained_in_the_order_asked_for(http: httpx.Client, sketch: bytes) -> None:
    found = [result["id"] for result in http.post("/search", content=sketch, params={"k": 3}).json()["results"]]
    answer = http.post("/explain", content=sketch, params={"photo": found})
    assert answer.status_code == 200, answer.text
    explained = ExplainResponse.model_validate_json(answer.content)
    assert [p.id for p in explained.photos] == found
    alone = http.post("/explain", files={"file": ("a.png", sketch, "image/png")}, params={"photo": found[0]})
    assert alone.json()["photos"][0] == answer.json()["photos"][0]


def test_photos_are_explained_by_a_liked_photo_or_by_one_that_is_sent(http: httpx.Client) -> None:
    liked = http.post("/explain", params={"photo": [3, 4], "like": 7})
    assert liked.status_code == 200, liked.text
    sent = http.post("/explain", params={"photo": [3, 4], "kind": "photo"}, content=http.get("/photos/7").content)
    assert sent.json()["photos"] == liked.json()["photos"]


def test_what_cannot_be_compared_is_refused_with_its_reason(http: httpx.Client, sketch: bytes) -> None:
    blank = encoded(drawing("star", 64).point(lambda _: 255), "PNG")
    for query, body, status, words in (
        ("photo=1", blank, 422, "blank"),
        ("photo=999999", sketch, 404, "999999"),
        ("photo=1", b"", 422, "like"),
        ("photo=1&like=2", sketch, 422, "like"),
        ("photo=1&like=2&like=3", b"", 422, "like"),
        ("photo=1&like=99999", b"", 404, "99999"),
    ):
        answer = http.post(f"/explain?{query}", content=body)
        assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True), answer.text


def test_the_command_writes_an_explanation(
    tmp_path: Path, settings: Settings, gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing("star", 96).save(tmp_path / "sketch.png")
    common = ["--index", str(settings.index), "--weights", str(settings.weights)]
    assert main(["explain", *common, str(tmp_path / "sketch.png"), "-o", str(tmp_path / "why")]) == 0
    assert str(tmp_path / "why" / "explanation.json") in capsys.readouterr().out
    explained = [photo.paths[0] for photo in read(tmp_path / "why").photos]
    assert main(["search", *common, str(tmp_path / "sketch.png"), "--k", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert explained == [result["paths"][0] for result in found]
    answer, picture = read(tmp_path / "why"), Image.open(tmp_path / "why" / "1.png")
    cells = dict.fromkeys(match.photo_cell for match in answer.photos[0].matches)
    side = answer.sketch.picture().width
    for number, colour in zip(cells, _COLOURS, strict=False):
        row, column = divmod(number, answer.grid)
        corner = (side + _GAP + int(column * side / answer.grid) + 1, int(row * side / answer.grid) + 1)
        assert picture.getpixel(corner) == ImageColor.getrgb(colour), "a frame of each colour is seen in the photo"
    one = ["explain", *common, str(tmp_path / "sketch.png"), str(gallery / "p01.png")]
    assert main([*one, "-o", str(tmp_path / "one")]) == 0
    assert len(read(tmp_path / "one").photos) == 1
    assert main(["explain", *common, str(tmp_path / "none.png"), "-o", str(tmp_path / "why")]) == 2
    assert "none.png" in capsys.readouterr().err


def test_a_file_is_no_folder_for_files_and_that_is_said_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "why"
    file.touch()
    for output in (file, file / "below"):
        assert main(["explain", "no sketch.png", "-o", str(output)]) == 2
        assert capsys.readouterr().err == (
            f"error: --output {output}: {file} is a file; name a folder for the files.\n"
        )
