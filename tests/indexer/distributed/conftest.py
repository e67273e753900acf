import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sketch_search import model
from sketch_search.indexer import Address, BuildRequest, build
from sketch_search.indexer.building.builder import BuildReport
from sketch_search.indexer.distributed import Machines, build_shards
from tests.indexer.distributed.workers import SLICE, BuildShards, connection
from tests.indexer.galleries import save_photos
from tests.model.torch.test_network import written_with_graphs

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster


@pytest.fixture(scope="package")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with written_with_graphs(tmp_path_factory.mktemp("small")) as checkpoint:
        yield checkpoint


@pytest.fixture(scope="package")
def by_small(small: Path) -> model.Matcher:
    return model.load(small)


@pytest.fixture(scope="package")
def sharded(ray_cluster: "Cluster", small: Path) -> Iterator[BuildShards]:
    def run(photos: Address, shards: Path, number: Any = None, progress: Any = None, **asked: Any) -> BuildReport:
        machines = Machines(ray_cluster.address, device="cpu", workers=2, weights=str(small))
        return build_shards(shards, BuildRequest((photos,), embedder="ret", shards=number, **asked), machines, progress)

    with connection(ray_cluster.address, XDG_DATA_HOME=str(small.parent)), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sketch_search.indexer.distributed.SLICE", SLICE)
        yield run


@pytest.fixture(scope="package")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_photos(tmp_path_factory.mktemp("gallery") / "photos", 24)
    shutil.copy(folder / "Ännchen 001.png", folder / "zz a copy.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture(scope="package")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory, by_small: model.Matcher) -> Path:
    index = tmp_path_factory.mktemp("plain") / "index"
    build(index, BuildRequest([photos], embedder="ret"), by_small)
    return index


@pytest.fixture(scope="package")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory, sharded: BuildShards) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "shards"
    sharded(photos, folder, 3)
    return folder
