"""Files that are read and locked, also on network drives that refuse locks, as CIFS and NFS may."""

import errno
import fcntl
import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

from sketch_search.indexer import IndexRefused
from sketch_search.indexer.errors import IndexBusy
from sketch_search.indexer.store import files
from sketch_search.indexer.store.folders import LocalFolder
from sketch_search.indexer.store.location import IndexFolder, hold_lock
from sketch_search.model.files import read_regular
from tests.indexer.galleries import save_photo
from tests.programs import PATIENCE, run_python


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
