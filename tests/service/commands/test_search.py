import json
from pathlib import Path

import pytest

from indexer import BadInvocation, Index, Request, build
from model import Matcher
from service.client import Client
from service.commands.search import search
from service.schemas import SearchQuery
from service.settings import Settings
from tests.service.served import Served
from tests.service.small_gallery import draw_photo


@pytest.fixture
def drawn(tmp_path: Path, sketch: bytes) -> str:
    path = tmp_path / "sketch.png"
    path.write_bytes(sketch)
    return str(path)


def test_the_command_line_answers_as_the_server_and_takes_photos_by_their_paths(
    settings: Settings, server: Served, index: Index, gallery: Path, drawn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, number = index.photo(1).paths[0], int(index.ids.max())
    with Client(server.url) as client:
        by_server = client.search(drawn, k=3, fold=True, like=[1], unlike=[number]).model_dump(mode="json")
    for liked in (path, str(gallery / path), "1"):
        query = SearchQuery(k=3, fold=True)
        assert search(settings, drawn, query, like=[liked], unlike=[str(number)], as_json=True) == 0
        answer = json.loads(capsys.readouterr().out)
        assert {**answer, "timings_ms": 0} == {**by_server, "timings_ms": 0}
    with pytest.raises(BadInvocation, match="the index has no photo at nowhere"):
        search(settings, None, SearchQuery(), like=["nowhere.png"], as_json=True)


def test_names_in_json_do_not_reach_a_terminal_as_they_are(
    settings: Settings, matcher: Matcher, drawn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["\x9b31mred\u202egpj.png", "Ännchen.png"]
    (tmp_path / "photos").mkdir()
    for seed, name in enumerate(names):
        draw_photo(seed).save(tmp_path / "photos" / name)
    build(tmp_path / "index", Request([tmp_path / "photos"], embedder="ret"), matcher)
    own = settings.model_copy(update={"index": tmp_path / "index"})
    assert search(own, drawn, SearchQuery(), as_json=True) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip("\n").isprintable()
    assert {result["paths"][0] for result in json.loads(printed)["results"]} == {*names}
