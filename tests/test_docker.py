"""Checks the Dockerfile, the compose file and the systemd units. No engine builds or starts them here."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from sketch_search.indexer.commands import index
from sketch_search.service.serving.connection import GRACE_SECONDS
from sketch_search.service.settings import Settings
from tests.programs import PATIENCE, parse, run_python
from tests.service.served import address, running

_CHECKOUT = Path(__file__).resolve().parent.parent
_DOCKER = _CHECKOUT / "docker"
_UNITS = ("sketch-search.service", "sketch-search-index.service")


@dataclass
class Stage:
    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [arguments for instruction, arguments in self.steps if instruction == name]


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    lines = [line for line in (_DOCKER / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    found: dict[str, Stage] = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            base, name = arguments.split(" AS ")
            stage = found[name] = Stage(name, base, list(found[base].steps) if base in found else [])
        elif found and instruction:
            stage.steps.append((instruction, arguments.strip()))
    return found


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file, with every variable at its default."""
    text = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", (_CHECKOUT / "docker-compose.yml").read_text())
    assert "$" not in text
    return yaml.safe_load(text)


def test_no_committed_file_names_a_host_to_fetch_from() -> None:
    for name in (*(f"docker/{name}" for name in ("Dockerfile", *_UNITS)), ".env.example", "docker-compose.yml"):
        links = re.findall(r"\w+://[^\s'\"]+", (_CHECKOUT / name).read_text())
        assert all(re.match(r"(http://127\.0\.0\.1|file:///opt/)", link) for link in links), (name, links)


def test_copied_files_exist_and_reach_the_builder(stages: dict[str, Stage]) -> None:
    steps = [step for stage in stages.values() for step in stage.all("COPY") if "--from=" not in step]
    copied = {source for step in steps for source in step.split()[:-1]}
    assert copied == set(re.findall(r"^!(.*)$", (_CHECKOUT / ".dockerignore").read_text(), re.MULTILINE))
    assert list(stages)[-1] == "cpu", "the default target"
    assert all((_CHECKOUT / source).exists() for source in copied)
    packages = tomllib.loads((_CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert {pattern.removesuffix("*") for pattern in packages["include"]} <= copied


def test_containers_run_as_nobody_and_listen_here_alone(compose: dict[str, Any], stages: dict[str, Stage]) -> None:
    user = stages["cpu"].all("USER")[-1]
    assert min(map(int, user.split(":"))) > 0
    # A list, since a shell in between would keep the signals to itself.
    assert json.loads(stages["cpu"].all("CMD")[-1]) == ["python", "-m", "service"]
    for name, service in compose["services"].items():
        assert service["build"]["target"] in stages
        assert service["build"]["args"].keys() == {"PIP_EXTRA_INDEX_URL"}
        locked = [service[key] for key in ("read_only", "cap_drop", "security_opt", "user")]
        assert locked == [True, ["ALL"], ["no-new-privileges:true"], user]
        # Kernels of some NAS refuse a limit of CPUs, which is in a file of its own.
        assert service["deploy"]["resources"]["limits"].keys() == {"memory", "pids"}
        assert all(mount["read_only"] for mount in service.get("volumes", ()) if isinstance(mount, dict))
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        # Nodes of a cluster are reached with a token, which has no default: Ray starts none with an empty one.
        node = name.startswith("ray-")
        assert service["environment"].get("RAY_AUTH_TOKEN", "none needed") == (None if node else "none needed")
        prefix, variables = "SKETCH_SEARCH_", service["environment"]
        given = {key[len(prefix) :].lower(): text for key, text in variables.items() if key.startswith(prefix)}
        assert given.keys() <= Settings.model_fields.keys()
        Settings(**{key: text for key, text in given.items() if text})
        assert int(service["stop_grace_period"].removesuffix("s")) > GRACE_SECONDS
        command = service.get("command", [])
        # A service without a profile starts unless others are named. Both systems can run at once.
        (profile,) = service.get("profiles", ["cpu"])
        assert service["build"]["target"] == {"watch": "cpu", "two-stage": "clip"}.get(profile, profile)
        assert (profile == "cpu") == (name in {"index", "service"})
        assert bool(service["deploy"]["resources"].get("reservations")) == (profile == "gpu")
        assert service.get("ports", ["127.0.0.1:8000:8000"]) == [f"127.0.0.1:{8000 + (name == 'two-stage')}:8000"]
        writes = "index" in name or name == "ray-worker"
        own = [mount for mount in service.get("volumes", ()) if isinstance(mount, str)]
        assert all(mount.endswith(":ro") != writes for mount in own if "/index" in mount)
        if command[:3] == ["python", "-m", "indexer"]:
            asked = parse(index, command[3:]).params
            assert asked["folders"] == (Path(service["volumes"][0]["target"]),)
            assert asked["system"] == ("two-stage" if name == "two-stage-index" else "auto")
            assert asked["embedder"] == ("clip" if name in {"two-stage-index", "index-gpu"} else "auto")
            assert service["restart"] == ("unless-stopped" if "--watch" in command else "no")


def test_an_images_packages_are_those_of_the_lock_with_one_faiss(stages: dict[str, Stage]) -> None:
    def names(text: str) -> set[str]:
        return {re.split(r"[<>=]", line)[0].lower().replace("_", "-") for line in text.splitlines()}

    def needed(*arguments: str) -> set[str]:
        done = run_python(str(_DOCKER / "requirements.py"), *arguments, folder=_CHECKOUT)
        assert done.returncode == 0, done.stderr
        return names(done.stdout)

    locked = names((_CHECKOUT / "constraints.txt").read_text())
    image = needed("server", "heic", "raw", "remote")
    assert {"onnxruntime", "faiss-cpu", "pillow-heif", "rawpy", "fastapi", "s3fs"} <= image <= locked
    assert "torch" not in image
    assert needed("--only", "ray") == {"ray[default]"}
    assert "ray" in locked
    for extra in ("ray", "clip"):
        (adding,) = (step for step in stages[f"venv-{extra}"].all("RUN") if "--only" in step)
        assert f"--only {extra}" in adding
    assert {"torch", "faiss-gpu"} <= needed("--only", "gpu", "clip", "faiss-gpu")
    (replacing,) = (step for step in stages["venv-gpu"].all("RUN") if "faiss" in step)
    assert "uninstall --yes faiss-cpu" in replacing
    pins = dict(re.findall(r"^(faiss-\w+)==(\S+)", (_CHECKOUT / "constraints.txt").read_text(), re.MULTILINE))
    assert pins["faiss-gpu"] == pins["faiss-cpu"]
    assert "--only gpu clip faiss-gpu" in replacing


def test_the_health_check_finds_the_service_alive_without_an_index_until_it_stops(tmp_path: Path) -> None:
    def healthy() -> int:
        proxies = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
        variables = {**os.environ, **proxies, "SKETCH_SEARCH_PORT": str(url.port)}
        return run_python(str(_DOCKER / "healthcheck.py"), environment=variables).returncode

    settings = Settings(index=tmp_path / "none")
    with running(settings, tmp_path / "log", SKETCH_SEARCH_ALLOWED_HOSTS="photos.example") as process:
        url = httpx.URL(address(process))
        for path, host, status in (
            ("/readyz", "127.0.0.1", 503),
            ("/info", "photos.example", 200),
            ("/info", "127.0.0.1", 400),
        ):
            assert httpx.get(url.join(path), headers={"Host": host}, timeout=PATIENCE).status_code == status, path
        assert healthy() == 0
    assert process.returncode in {0, -signal.SIGTERM}
    assert healthy() == 1


def test_the_example_of_env_has_every_variable_of_the_compose_file_with_its_default() -> None:
    used = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", (_CHECKOUT / "docker-compose.yml").read_text()))
    named = dict(re.findall(r"^# ([A-Z_]+)=(\S*)", (_CHECKOUT / ".env.example").read_text(), re.MULTILINE))
    assert used == named


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", [*_UNITS, "sketch-search-index.timer"])
def test_systemd_finds_nothing_wrong_with_the_units(name: str, tmp_path: Path) -> None:
    # The program is not installed here; what stands in for it has to exist.
    for unit in (*_UNITS, name):
        text = (_DOCKER / unit).read_text().replace("/opt/sketch-search/.venv/bin/sketch-search", sys.executable)
        (tmp_path / unit).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert name not in done.stderr
