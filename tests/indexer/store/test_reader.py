import errno
import fcntl
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketch_search import indexer, model
from sketch_search.indexer import IndexRefused
from sketch_search.indexer.errors import IndexBusy
from sketch_search.indexer.store import files
from sketch_search.indexer.store.folders import LocalFolder
from sketch_search.indexer.store.generation import FORMAT_VERSION
from sketch_search.indexer.store.location import IndexFolder, hold_lock
from sketch_search.model.engine import unit
from sketch_search.model.files import read_regular
from sketch_search.model.search.clusters import Vectors, assign, default_clusters
from tests.indexer.galleries import Collection, clustered, edit_manifest, save_photo, save_photos, shorten, sign
from tests.indexer.killed_builds import StopAfter, Stopped
from tests.programs import PATIENCE, run_python


def stopped(collection: Collection) -> Path:
    """Stops a first build after 8 of its 12 photos, and returns the folder that it has left."""
    with pytest.raises(Stopped):
        collection.build(progress=StopAfter(8), batch=4)
    (left,) = collection.index.glob(".building-*")
    return left


def test_a_stopped_first_build_says_so_and_is_replaced(collection: Collection, other_matcher: model.Matcher) -> None:
    stopped(collection)
    with pytest.raises(
        indexer.IndexRefused, match="has not finished; if it was stopped, `sketch-search index FOLDER` with the"
    ):
        collection.open()
    assert collection.build(other_matcher).encoded == 12
    assert not list(collection.index.glob(".building-*"))


@pytest.mark.parametrize("version", [9, FORMAT_VERSION - 1, FORMAT_VERSION + 1])
def test_an_index_of_another_format_is_refused_by_everything(version: int, copied: Collection) -> None:
    edit_manifest(copied.index, format_version=version, something_else=True)
    sentence = f"has index format {version}, and this program reads {FORMAT_VERSION}; delete that folder, and run `"
    before = {path.name for path in copied.index.iterdir()}
    for work in (
        lambda: copied.open(),
        lambda: indexer.read_summary(copied.index),
        lambda: copied.update(),
        lambda: copied.build(),
        lambda: indexer.remove([], copied.index, ids=[1]),
        lambda: indexer.verify(copied.index),
    ):
        with pytest.raises(indexer.IndexRefused, match=sentence):
            work()
    assert {path.name for path in copied.index.iterdir()} == before


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("photo_sha256", r"other photo weights .* --weights, or run"),
        ("preprocessing_fingerprint", "other image preprocessing"),
    ],
)
def test_an_index_of_other_weights_or_pixels_is_refused(field: str, sentence: str, copied: Collection) -> None:
    edit_manifest(copied.index, **{field: "0" * 64})
    with pytest.raises(indexer.IndexRefused, match=sentence):
        copied.open()


ARRAYS = ("clusters", "centroid_tokens", "centroid_positions", "centroid_ret", "places", "vectors")
FILES = ["g000001/photos.sqlite", *(f"g000001/{name}.npy" for name in ARRAYS)]
FILES += [f"segments/*/{name}.npy" for name in ("tokens", "scales", "positions")]


@pytest.mark.parametrize(("damage", "word"), [(Path.unlink, "is missing"), (shorten, "bytes instead of")])
@pytest.mark.parametrize("name", FILES)
def test_incomplete_files_are_refused(name: str, damage: Callable[[Path], None], word: str, copied: Collection) -> None:
    (path,) = copied.index.glob(name)
    damage(path)
    with pytest.raises(indexer.IndexRefused, match=f"{path.name} .*{word}.* index build`"):
        copied.open()
    assert len(indexer.verify(copied.index)) == 1


def test_an_array_that_the_manifest_vouches_for_is_not_unpickled(copied: Collection) -> None:
    np.save(copied.index / "g000001" / "places.npy", np.array([print], dtype=object), allow_pickle=True)
    sign(copied.index)
    with pytest.raises(indexer.IndexDamaged, match=r"places\.npy is damaged"):
        copied.open()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("CURRENT", text) for text in ("", "g1", "../elsewhere", "g000009")),
        *(("g000001/manifest.json", text) for text in ("", "[]", "\udcff", "[" * 100_000)),
    ],
    ids=lambda text: text[:30],
)
def test_a_damaged_manifest_is_refused_and_nothing_written(name: str, text: str, copied: Collection) -> None:
    (copied.index / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    left = sorted(copied.index.rglob("*"))
    for work in (copied.open, copied.update, copied.build, lambda: indexer.verify(copied.index)):
        with pytest.raises(indexer.IndexRefused, match=r"delete .*/index and build again"):
            work()
    assert sorted(copied.index.rglob("*")) == left


@pytest.mark.parametrize("name", ["manifest.json", "clusters.npy", "photos.sqlite"])
def test_an_unreadable_file_is_not_called_missing(name: str, copied: Collection) -> None:
    path = copied.index / "g000001" / name
    path.unlink()
    path.symlink_to(path)  # opening it fails for the administrator, too, whom no permission stops
    readers: list[Callable[[], object]] = [copied.open]
    if name != "clusters.npy":
        readers += [lambda: indexer.read_summary(copied.index), lambda: indexer.verify(copied.index)]
    for read in readers:
        with pytest.raises(indexer.IndexRefused, match="check its permissions") as told:
            read()
        assert f"{name} cannot be read: Too many levels" in str(told.value)
        assert "missing" not in str(told.value)
        assert "delete" not in str(told.value)


@pytest.mark.parametrize("name", ["g000099", ".building-x", "segments/s000001-deadbeef", "holiday"])
def test_a_stray_link_in_the_folder_of_an_index_is_left_alone(name: str, copied: Collection, tmp_path: Path) -> None:
    kept = save_photos(tmp_path / "kept", 3)
    (copied.index / name).symlink_to(kept)
    indexer.remove([copied.photos / "Ännchen 001.png"], copied.index)
    assert copied.update().photos == 11
    assert (copied.index / name).is_symlink()
    assert len(list(kept.rglob("*.png"))) == 3
    assert indexer.verify(copied.index) == []


@pytest.mark.parametrize("name", [".CURRENT.partial", ".progress.json.partial"])
def test_a_build_writes_through_no_link_to_a_file(name: str, copied: Collection, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (copied.index / name).symlink_to(mine)
    assert copied.update(recluster=True).generation == "g000002"
    assert mine.read_text() == "mine"


def test_a_database_of_no_build_is_begun_anew(collection: Collection) -> None:
    file = stopped(collection) / "build.sqlite"
    os.truncate(file, file.stat().st_size // 2)
    assert collection.build().encoded == 12


def test_roots_can_be_mapped_and_no_original_is_read_by_a_link(built_once: Collection, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(built_once.photos, tmp_path / "moved"))
    for name in ("in here", "Ännchen 001.png"):
        (moved / name).rename(tmp_path / name)
        (moved / name).symlink_to(tmp_path / name)
    with indexer.open_index(built_once.index, built_once.matcher, gallery_roots=[moved]) as index:
        content = (moved / "Ännchen 002.png").read_bytes()
        assert index.open_photo(index.photo_at("Ännchen 002.png").id).whole() == content
        assert Path(index.address_of("Ännchen 002.png")).read_bytes() == content
        for name in ("Ännchen 001.png", "in here/Ännchen 000.png"):
            with pytest.raises(indexer.PhotoUnavailable, match=r"can no longer be read \("):
                index.open_photo(index.photo_at(name).id)
    with pytest.raises(indexer.IndexRefused, match="1 gallery root"):
        indexer.open_index(built_once.index, built_once.matcher, gallery_roots=[moved, moved])


WIDTH = 8
Floats = npt.NDArray[np.float32]


def photos(count: int, seed: int = 0) -> Floats:
    return unit(np.random.default_rng(seed).normal(size=(count, WIDTH)))


def vectors_of(values: Floats) -> Vectors:
    centroids, of_photo = clustered(values, default_clusters(len(values)))
    sizes = np.bincount(of_photo, minlength=len(centroids))
    return Vectors(values[np.argsort(of_photo, kind="stable")].astype(np.float16), sizes, centroids)


def every(vectors: Vectors) -> npt.NDArray[np.int64]:
    return np.arange(len(vectors.sizes))


def exact(vectors: Vectors, direction: Floats, count: int, mask: npt.NDArray[np.bool_] | None = None) -> set[int]:
    products = vectors.of() @ direction
    if mask is not None:
        products[~mask] = -np.inf
    return set(np.argsort(-products)[:count].tolist())


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 90), wanted=st.integers(1, 40), several=st.integers(1, 3), data=st.data())
def test_with_every_cell_opened_the_best_are_found(count: int, wanted: int, several: int, data: st.DataObject) -> None:
    vectors, directions = vectors_of(photos(count)), photos(several, seed=1)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    for some in (None, mask):
        able = min(wanted, count if some is None else int(some.sum()))
        found = vectors.near(directions, wanted, some, every(vectors)).tolist()
        assert found == sorted(set().union(*(exact(vectors, one, able, some) for one in directions)))


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 60), data=st.data())
def test_every_photo_is_in_one_cluster_and_no_cluster_is_empty(count: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, count))
    # Few distinct points, so that some clusters must end empty.
    some = unit(np.random.default_rng(0).normal(size=(count, 8)))
    points = some[np.random.default_rng(count).integers(0, max(1, count // 2), count)]
    centroids, assignment = clustered(points, wanted)
    assert sorted(set(assignment.tolist())) == list(range(len(centroids)))
    assert len(assignment) == count
    assert len(centroids) <= wanted
    assert np.array_equal(assign(points, centroids), assignment)


def test_clusters_are_computed_on_all_gpus_if_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    (centroids, assignment), moved = clustered(photos(40), 4), Mock(side_effect=lambda index, ngpu=-1: index)
    # This machine's memory stands in for that of two GPUs.
    for name in ("get_num_gpus", "extra_wrappers.get_num_gpus"):
        monkeypatch.setattr(f"faiss.{name}", lambda: 2)
    monkeypatch.setattr("faiss.index_cpu_to_all_gpus", moved)
    again = clustered(photos(40), 4)
    assert np.array_equal(again[0], centroids)
    assert np.array_equal(again[1], assignment)
    assert moved.call_count == 2, "k-means, and the nearest centroids"


def test_a_gallery_of_more_than_twice_the_photos_gets_new_clusters(collection: Collection) -> None:
    assert collection.build().clusters == 3
    save_photos(collection.photos, 6, start=20)
    assert collection.build().clusters == 3, "18 photos are as many as 3 clusters may have"
    save_photos(collection.photos, 1, start=40)
    report = collection.build()
    assert (report.encoded, report.clusters) == (1, 4)
    assert collection.build(clusters=2).clusters == 2
    save_photos(collection.photos, 6, start=60)
    assert collection.build().clusters == 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "inner").mkdir(parents=True)
    (tmp_path / "root" / "inner" / "photo.png").write_bytes(b"good")
    os.mkfifo(tmp_path / "root" / "pipe.png")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return tmp_path / "root"


OUTSIDE = ("../secret.png", "inner/../../secret.png", "./inner/photo.png", "inner//photo.png", "", ".", "..", "/etc")
NO_FILES = ("inner", "inner/", "missing.png", "inner/photo.png/x", "inner\0/photo.png", "pipe.png", r"\ud800.png")


@pytest.mark.parametrize("path", [*OUTSIDE, *NO_FILES])
def test_a_path_that_is_not_a_plain_file_below_the_root_is_refused(path: str, root: Path) -> None:
    with pytest.raises(OSError, match=r"\w"):
        LocalFolder(root).read(path)


@pytest.mark.parametrize("change", ["grows", "shrinks", "is written over"])
def test_a_file_that_changes_while_read_is_refused(change: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / "inner" / "photo.png"
    os.utime(path, ns=(5, 7))
    data = {"grows": b"good and more", "shrinks": b"goo", "is written over": b"bad!"}[change]
    fstat = os.fstat
    looks = 0

    def looked_at(descriptor: int) -> os.stat_result:
        nonlocal looks
        looks += 1
        if looks == 2:
            writer = os.open(path, os.O_WRONLY | os.O_TRUNC)
            os.write(writer, data)
            os.close(writer)
        return fstat(descriptor)

    monkeypatch.setattr(os, "fstat", looked_at)
    with pytest.raises(files.FileChanging, match="it changed while being read"):
        LocalFolder(root).read("inner/photo.png")


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "CURRENT"
    os.mkfifo(pipe)
    with pytest.raises(IndexRefused, match="not a regular file"):
        IndexFolder(tmp_path).current()
    for read in (lambda: files.hash_file(pipe), lambda: read_regular(Path("/dev/zero"), 10)):
        with pytest.raises(OSError, match="not a regular file"):
            read()


PARTS = ["\\", "u", "dce9", "udce9", "\udce9", "\ud800", "é"]


def test_every_name_has_a_text_of_its_own_that_leads_back_to_it() -> None:
    names = ["".join(parts) for length in range(5) for parts in product(PARTS, repeat=length)]
    texts = {name: files.text_of_name(name) for name in names}
    assert len(set(texts.values())) == len(set(names))
    for name, text in texts.items():
        assert files.is_unicode(text)
        assert files.name_of_text(text) == name
    for name in ("Ännchen 001.png", r"a\b", r"a\udb", r"udce9", r"C\\D", ""):
        assert files.text_of_name(name) == name


CASE = Path(__file__).parents[2] / "cases" / "31_share_without_locks.c"


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOLCK])
def test_a_file_is_the_lock_where_locks_are_refused(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        with hold_lock(tmp_path), pytest.raises(IndexBusy, match="another build"), hold_lock(tmp_path):
            pass
    assert {file.name for file in tmp_path.iterdir()} <= {".lock"}
    # What a process has left that was killed.
    gone = subprocess.Popen(["true"])
    gone.wait()
    with hold_lock(tmp_path):
        left = (tmp_path / ".lock-file").read_text()
    (tmp_path / ".lock-file").write_text(left.replace(left.split()[0], str(gone.pid)))
    with hold_lock(tmp_path):
        pass


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc to refuse locks with")
def test_a_build_on_a_drive_without_locks_works(tmp_path: Path) -> None:
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "locks.so", CASE], check=True)
    refused = {"LD_PRELOAD": str(tmp_path / "locks.so"), "LOCKS": "both", "LOCKERR": str(errno.EACCES)}
    save_photo(tmp_path / "photos" / "a.png", 1)
    arguments = ("-m", "indexer", "build", str(tmp_path / "photos"), "--index", str(tmp_path / "index"))
    done = run_python(*arguments, environment=os.environ | refused)
    assert "now current" in done.stdout, done.stderr


def test_two_processes_that_write_one_file_both_write_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, contents = tmp_path / "1-64.jpg", [b"a" * 99, b"b" * 99]
    both_written = threading.Barrier(2)
    replace = os.replace

    def replaced(*given: Path) -> None:
        both_written.wait(PATIENCE)
        replace(*given)

    monkeypatch.setattr(files.os, "replace", replaced)
    with ThreadPoolExecutor(2) as pool:
        for written in [pool.submit(files.write_atomically, path, content, sync=False) for content in contents]:
            written.result()
    assert path.read_bytes() in contents
    assert [*tmp_path.iterdir()] == [path]
