import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sketch_search.model.errors import UserError
from sketch_search.model.files import MARK, write_files


def a_text(path: Path) -> None:
    path.write_text("mine")


def a_link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def a_link_to_our_own(path: Path) -> None:
    path.with_name("elsewhere").write_text(MARK)
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("make", [a_text, a_link, a_link_to_our_own, Path.mkdir, os.mkfifo])
def test_files_replace_only_what_this_program_wrote(tmp_path: Path, make: Callable[[Path], None]) -> None:
    first, there = tmp_path / "1.png", tmp_path / "2.png"
    make(there)
    before = state(there)
    with pytest.raises(UserError, match="is not overwritten; move it away"):
        write_files({first: b"x", there: b"x"})
    assert state(there) == before
    assert not first.exists()


def state(path: Path) -> tuple[object, ...]:
    elsewhere, status = path.with_name("elsewhere"), path.lstat()
    return status.st_ino, status.st_mtime_ns, elsewhere.exists() and elsewhere.read_text()


def test_files_of_this_program_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "1.png"
    for content in (f"{MARK} long", f"{MARK}"):
        write_files({file: content.encode()})
        assert file.read_text() == content
