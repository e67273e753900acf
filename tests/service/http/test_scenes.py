"""Words of scenes, by the checkpoint of the package, among the sample photos."""

from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from sketch_search import model
from sketch_search.indexer import BuildRequest, build, samples
from sketch_search.model.engine import default_checkpoint
from sketch_search.service.commands import main
from sketch_search.service.settings import Settings
from tests.pictures import encoded
from tests.service.served import asked

pytest.importorskip("sklearn", reason="scikit-learn has the two photos")
TEMPLE, FLOWER = "scikit-learn/china.jpg", "scikit-learn/flower.jpg"


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Settings:
    """The settings of a server for two photos and some painted things."""
    folder, things = tmp_path_factory.mktemp("scenes"), ("star", "house", "umbrella", "car")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "THINGS", {thing: samples.THINGS[thing] for thing in things})
        patch.setattr(samples, "SCENES", ())
        patch.setattr(samples, "SKETCHED", ())
        photos = samples.write_samples(folder / "samples").photos
    build(folder / "index", BuildRequest([photos / name for name in ("scikit-learn", *things)]), model.load())
    return settings.model_copy(update={"index": folder / "index", "weights": default_checkpoint()})


@pytest.fixture(scope="module")
def http_scenes(sampled: Settings) -> Iterator[httpx.Client]:
    with asked(sampled) as connection:
        yield connection


@pytest.mark.parametrize(
    ("text", "means", "photo"),
    [
        *((text, means, TEMPLE) for text, means in (("temple", None), ("寺", "temple"), ("Tempel", "temple"))),
        *((text, means, FLOWER) for text, means in (("flowers", None), ("Blumen", "flower"), ("fleurs", "flower"))),
        *((text, None, None) for text in ("snow", "forest", "city", "people", "sunset")),
        *((text, "snow", None) for text in ("Schnee", "neige", "nieve", "neve", "снег", "kar", "salju", "برف", "ثلج")),
        *((text, "city", None) for text in ("Stadt", "ciudades", "город", "都市", "도시", "城市")),
        *((text, "dog and snow", None) for text in ("Hund im Schnee", "perro en la nieve")),
    ],
)
def test_a_scene_is_found_by_its_word_and_denied_if_no_photo_shows_it(
    http_scenes: httpx.Client, text: str, means: str | None, photo: str | None
) -> None:
    found = http_scenes.post("/search", params={"text": text}).json()
    assert found.get("word_means") == means
    if photo is None:
        assert found["word_fits"] is False
    else:
        assert found["results"][0]["paths"][0] == photo
        assert found.get("word_fits") is not False


def test_of_several_things_a_word_of_the_whole_scene_names_none(http_scenes: httpx.Client) -> None:
    papers = []
    for name, x in (("house", 0), ("umbrella", 300)):
        paper = Image.new("RGB", (600, 300), "white")
        paper.paste(samples.draw_sketch(name).resize((300, 300)), (x, 0))
        papers.append(("file", (f"{name}.png", encoded(paper), "image/png")))
    said = [
        http_scenes.post("/search", files=papers, params={"text": text}).json()["things"]
        for text in ("snow", "house, snow")
    ]
    assert [[thing.get("word") for thing in things] for things in said] == [[None, None], ["house", None]]


def test_the_terminal_says_that_no_photo_shows_a_scene(sampled: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    searching = ("search", "--index", str(sampled.index), "--weights", str(sampled.weights), "--text")
    assert main([*searching, "temple"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*searching, "Stadt"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "'Stadt' is searched for as 'city'",
        "no photo looks much like 'Stadt'; these are the closest",
    ]
