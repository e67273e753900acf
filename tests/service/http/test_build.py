from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sketch_search.service.http.context import TOKEN_HEADER
from sketch_search.service.settings import ServerAddress, Settings, announced, find_server
from tests.indexer.disks import bound_by_permissions
from tests.model.torch.test_network import written_with_graphs
from tests.programs import PATIENCE, wait_until
from tests.service.served import address, error, running, served
from tests.service.small_gallery import save_copy

# As few as may all be missing before a build takes it for the wrong disk.
PHOTOS = 5


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gallery")
    for seed in range(PHOTOS):
        save_copy(root / ("größe" if seed % 2 else "") / f"{seed}.png", seed, 0)
    return root


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with written_with_graphs(tmp_path_factory.mktemp("small")) as checkpoint:
        yield Settings(weights=checkpoint, queue_seconds=PATIENCE)


@contextmanager
def empty(settings: Settings, index: Path, **changes: Any) -> Iterator[httpx.Client]:
    """A client, with its token, of a server that was started before its index is there."""
    with served(settings, index=index, **changes) as server:
        server.http.headers.update(server.token)
        yield server.http


def over(http: httpx.Client) -> dict[str, Any]:
    wait_until(lambda: not http.get("/info").json()["build"]["running"], "the build has not ended")
    return http.get("/info").json()["build"]


def test_a_folder_is_indexed_by_a_server_alone(settings: Settings, few: Path, tmp_path: Path, sketch: bytes) -> None:
    (tmp_path / "empty").mkdir()
    # Such a name is no Unicode.
    own, where = tmp_path / "index \udce9", ServerAddress(url="http://127.0.0.1:1", token="sesame")
    with empty(settings, own) as http, announced(own, where):
        info = http.get("/info").json()
        assert (info["ready"], info["allows"]["build"], info["build"]) == (False, True, None)
        assert find_server(own) is None
        assert error(http.get("/gallery")) == (503, "not_ready")
        http.post("/build", params={"folder": str(tmp_path / "empty")})
        assert "no image files" in over(http)["failed"]
        # File managers give a folder in this form.
        answer = http.post("/build", params={"folder": few.as_uri()})
        assert (answer.status_code, answer.json()["running"]) == (202, True)
        build = over(http)
        assert (build["phase"], build["failed"]) == ("done", None)
        wait_until(lambda: http.get("/readyz").status_code == 200, "the service is not ready")
        assert len(http.post("/search", content=sketch, params={"k": 50}).json()["results"]) == PHOTOS
        wait_until(lambda: find_server(own) is not None, "the server does not tell where it is")
        (tmp_path / "more").mkdir()
        (tmp_path / "more" / "broken.png").write_bytes(b"no picture")
        save_copy(tmp_path / "more" / "one.png", 77, 0)
        assert http.post("/build", params={"folder": f'"{tmp_path / "more"}" '}).status_code == 202
        assert over(http)["failed"] is None
        known = http.get("/gallery").json()
        assert known["folders"] == [str(few), str(tmp_path / "more")]
        assert [file["path"] for file in known["files"]] == ["more/broken.png"]
        assert (known["unread"], "not a supported image" in known["files"][0]["reason"]) == (1, True)
        wait_until(lambda: http.get("/info").json()["index"]["photos"] == PHOTOS + 1, "the photo is not found")
        assert known["below"] == [few.name, f"{few.name}/.", f"{few.name}/größe", "more"]
        inside = len([*(few / "größe").iterdir()])
        assert known["files_below"] == [PHOTOS, PHOTOS - inside, inside, 1]
        assert sum(known["days"].values()) == known["undated"] == PHOTOS + 1
        within = http.get("/gallery", params={"folder": "more"}).json()
        assert (sum(within["days"].values()), within["below"]) == (1, known["below"])
        for folders, photos in ((["more"], 1), ([], PHOTOS + 1), ([f"{few.name}/."], PHOTOS - inside)):
            assert http.post("/search", content=sketch, params={"folder": folders}).json()["photos"] == photos
        removed = http.post("/remove", params={"folder": str(tmp_path / "more")})
        assert removed.json() == {"files": 2, "photos": PHOTOS}
        assert (tmp_path / "more" / "one.png").exists()
        assert http.get("/info").json()["index"]["photos"] == PHOTOS
        left = f"no photo would be left; to remove the index, delete its own folder, {tmp_path}"
        for folder, said in ((str(few), left), ("nowhere", "no photo at nowhere")):
            assert error(http.post("/remove", params={"folder": folder}), said) == (422, "bad_parameter")
        http.post("/build", params={"folder": str(tmp_path / "more")})
        assert over(http)["failed"] is None
        without = httpx.post(f"{http.base_url}/remove", params={"folder": "more"}, timeout=PATIENCE)
        assert error(without) == (403, "forbidden")
        assert httpx.get(f"{http.base_url}/gallery", timeout=PATIENCE).json()["folders"] == [few.name, "more"]


def test_a_build_excludes_by_patterns_that_are_kept(settings: Settings, few: Path, tmp_path: Path) -> None:
    with empty(settings, tmp_path / "index") as http:
        http.post("/build", params={"folder": str(few), "exclude": ["größe/", "*.gif"]})
        assert over(http)["failed"] is None
        wait_until(lambda: http.get("/readyz").status_code == 200, "the service is not ready")
        found = http.get("/gallery").json()
        assert (found["excluded"], found["below"]) == (["größe/", "*.gif"], [])
        for pattern, said in (("[z-a]", "cannot be read"), ("*a*a*a*a*b", "wildcards"), ("x" * 201, "exclude")):
            assert error(http.post("/build", params={"exclude": pattern}), said) == (422, "bad_parameter")
        http.post("/build", params={"include": "größe/"})
        assert over(http)["failed"] is None
        assert http.get("/gallery").json()["excluded"] == ["*.gif"]
        assert httpx.get(f"{http.base_url}/gallery", timeout=PATIENCE).json()["excluded"] == []


def test_folders_are_listed_to_builders(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("b", "A", ".hidden", "c", "\udce9"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    (tmp_path / "photos" / "file.jpg").touch()
    (tmp_path / "photos" / "round").symlink_to("round")
    with empty(settings, tmp_path / "index") as http:
        told = http.get("/folders", params={"path": str(tmp_path / "photos")}).json()
        assert told == {"path": str(tmp_path / "photos"), "above": str(tmp_path), "folders": ["A", "b", "c"]}
        assert http.get("/folders", params={"path": "/"}).json()["above"] is None
        monkeypatch.setenv("XDG_PICTURES_DIR", str(tmp_path / "pictures"))
        (tmp_path / "pictures").mkdir()
        assert http.get("/folders").json()["path"] == str(tmp_path)
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("HOME", str(tmp_path / "pictures"))
            elsewhere.chdir(tmp_path / "photos")
            assert http.get("/folders").json()["path"] == str(tmp_path / "photos")
        (tmp_path / "pictures" / "a.png").touch()
        assert http.get("/folders").json()["path"] == str(tmp_path / "pictures")
        missing = http.get("/folders", params={"path": str(tmp_path / "none")})
        assert error(missing, "cannot be read") == (422, "bad_parameter")
        assert error(http.get("/folders", params={"path": "photos"})) == (422, "bad_parameter")
        del http.headers[TOKEN_HEADER]
        assert error(http.get("/folders")) == (403, "forbidden")


def test_a_folder_that_cannot_be_indexed_is_refused_at_once(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file.txt").touch()
    (tmp_path / "refused").mkdir(mode=0)
    (tmp_path / "index").mkdir()
    refused = {str(tmp_path / "none"): "does not exist", str(tmp_path / "file.txt"): "is not a folder"}
    refused |= {str(tmp_path / "refused"): "cannot be read", str(tmp_path / "index"): "lies inside the index"}
    refused |= {"~nosuch/x": "home folder ~nosuch is unknown", "/nul\0": "No folder can have this name"}
    refused |= {"/" + "x" * 300: "too long", "file://[::1": "", "file:///a%00": "", ".": "full path"}
    refused["s3://key:secret@bucket"] = "index URL"
    with bound_by_permissions(), empty(settings, tmp_path / "index") as http:
        for folder, said in refused.items():
            answer = http.post("/build", params={"folder": folder})
            assert error(answer, said) == (422, "bad_parameter")
            assert "secret" not in answer.text
            if said not in ("is not a folder", "lies inside the index", "index URL"):
                assert error(http.get("/folders", params={"path": folder})) == (422, "bad_parameter")
        assert http.get("/info").json()["build"] is None


def test_one_build_runs_at_a_time_and_ends_with_the_server(settings: Settings, few: Path, tmp_path: Path) -> None:
    with served(settings, index=tmp_path / "index") as server:
        place = {"folder": str(few)}
        answers = [server.http.post("/build", params=place, headers=server.token) for _ in range(2)]
        assert [answers[0].status_code, error(answers[1])] == [202, (409, "build_refused")]
        builder = server.context.builder
    left = builder.info()
    assert left is None or not left.running


@pytest.mark.parametrize(("allowed", "status"), [(True, 422), (False, 403)])
def test_a_setting_lets_all_build_or_nobody(settings: Settings, tmp_path: Path, allowed: bool, status: int) -> None:
    with empty(settings, tmp_path / "index", allow_build=allowed) as http:
        if allowed:
            del http.headers[TOKEN_HEADER]
        assert http.get("/info").json()["allows"]["build"] is allowed
        asked_for = http.post("/build", params={"folder": "none"})
        assert asked_for.status_code == status


def test_a_named_folder_is_served_at_once_and_indexed_behind(settings: Settings, few: Path, tmp_path: Path) -> None:
    new = settings.model_copy(update={"index": tmp_path / "index"})
    with running(new, tmp_path / "log", str(few), SKETCH_SEARCH_ALLOW_BUILD="no") as process, httpx.Client() as http:
        assert process.stdout is not None
        begun = next(line for line in process.stdout if line.startswith(("sketch-search at ", "index: ")))
        info = f"{begun.removeprefix('sketch-search at ').strip()}/info"
        assert http.get(info).status_code == 200
        ended = next(line for line in process.stdout if line.startswith("index: "))
        assert ended == f"index: {tmp_path / 'index'}, up to date\n"
        wait_until(lambda: (http.get(info).json()["index"] or {}).get("photos") == PHOTOS, "no photos can be found")
    (tmp_path / "none").mkdir()
    other = settings.model_copy(update={"index": tmp_path / "other"})
    with running(other, tmp_path / "log", str(tmp_path / "none")) as process:
        address(process)
        wait_until(lambda: "error: there are no image files" in (tmp_path / "log").read_text(), "it has not failed")
        assert process.poll() is None, "the server goes on"
