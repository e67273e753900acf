"""Sets rules for every test: how long it may take, what it may need of the machine, and that it waits for no disk."""

import faulthandler
import gc
import os
import signal
import ssl
import tempfile
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.programs import PATIENCE, SOAK_TIMEOUT, forget_syncs
from tests.ray_cluster import ray_cluster_of, set_environment
from tests.requirements import need_browser, need_data, required

if TYPE_CHECKING:
    from pathlib import Path

    from ray.cluster_utils import Cluster

    from sketch_search.model import Matcher
    from sketch_search.model.decoding import Decoders


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in the background deaf to Ctrl-C, and programs that tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    patch = pytest.MonkeyPatch()
    forget_syncs(patch)
    # Servers keep the tokens of their indexes in the user's folder.
    state = tempfile.TemporaryDirectory(prefix="sketch-search-state-")
    config.add_cleanup(state.cleanup)
    os.environ["XDG_STATE_HOME"] = state.name
    # Each client of httpx reads the certificates of all authorities, which takes longer than a test; one set will do.
    patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
    # There is no deadline, because other work of the machine slows an example. Only a soak looks for new examples.
    patient = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)
    settings.register_profile("test", patient, derandomize=True)
    settings.register_profile("soak", patient, max_examples=8000, print_blob=True)
    settings.load_profile(config.getoption("--hypothesis-profile") or "test")
    set_environment()
    # A misspelt requirement would otherwise require nothing.
    required()


def pytest_collection_finish() -> None:
    # The objects that all modules have made stay to the end, so that nobody need look for garbage among them.
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.timeout(SOAK_TIMEOUT))
        # A busy machine sometimes drops a press in a browser. A fault of the page fails twice; -ra lists each rerun.
        if "opened" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.flaky(reruns=1))
    # Those on the cluster come first, and so on one worker, from which no other takes them: it takes long to start.
    on_cluster = {item.path for item in items if "ray_cluster" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in on_cluster)


def pytest_exception_interact(call: pytest.CallInfo[object], report: pytest.TestReport | pytest.CollectReport) -> None:
    # Of a test that has waited in vain, the report shows where each thread was, such as a server's.
    if call.duration > PATIENCE / 4:
        with tempfile.TemporaryFile() as stacks:
            faulthandler.dump_traceback(stacks)
            stacks.seek(0)
            report.sections.append(("stacks of all threads", stacks.read().decode()))


@pytest.fixture(scope="session")
def chromium() -> None:
    need_browser()


@pytest.fixture(scope="session")
def shared_data() -> None:
    need_data()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> "Path":
    from tests.networks import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def default() -> "Matcher":
    """The network that comes along, for all tests that change nothing in it: to open it takes longer than most."""
    from sketch_search import model

    return model.load()


@pytest.fixture(scope="session")
def decoders() -> "Iterator[Decoders]":
    from sketch_search.model.decoding import Decoders

    with Decoders(4) as running:
        yield running


@pytest.fixture(scope="session")
def ray_cluster() -> "Iterator[Cluster]":
    """A Ray cluster on this machine, for all tests that need one. Skips them if Ray is not installed.

    Nobody is connected to it, and a test that connects disconnects again. It has room for two copies of each of two
    shards and of the encoder, and for another shard and its encoder.
    """
    with ray_cluster_of(cpus=8) as cluster:
        yield cluster
