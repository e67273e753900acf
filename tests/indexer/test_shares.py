"""Network drives that refuse locks, as CIFS and NFS may."""

import errno
import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sketch_search.indexer.errors import IndexBusy
from sketch_search.indexer.store.location import hold_lock
from tests.indexer.galleries import save_photo
from tests.programs import run_python

CASE = Path(__file__).parents[1] / "cases" / "31_share_without_locks.c"


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
