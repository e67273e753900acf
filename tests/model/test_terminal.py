import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from sketch_search.model.command_line import a_path
from sketch_search.model.errors import UserError
from sketch_search.model.files import MARK, write_files
from sketch_search.model.terminal import HomeUnknown, expand_home, run_program
from tests.programs import PATIENCE

NOBODY = "~nobody-of-this-name"


def test_a_path_is_taken_as_written_and_a_home_folder_that_nobody_has_is_a_sentence() -> None:
    assert expand_home("~/x") == Path.home() / "x"
    assert a_path("photos") == Path("photos")
    assert a_path(f"./{NOBODY}") == Path.cwd() / NOBODY
    with pytest.raises(HomeUnknown, match=f"the home folder {NOBODY} is unknown; write the whole path"):
        expand_home(f"{NOBODY}/photos")
    with pytest.raises(click.BadParameter, match=r"home folder .* is unknown"):
        a_path(NOBODY)


def _raising(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UserError("do this instead."), 2, "error: do this instead.\n"),
        (UserError("no photo\nat \x1b[2J"), 2, "error: no photo\\nat \\x1b[2J\n"),
        (FileNotFoundError(2, "No such file", "a\nb"), 2, "error: a\\nb: No such file; check its name"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device\n"),
        (MemoryError(), 2, "error: not enough memory"),
        (ImportError("x.so: cannot map"), 2, "error: a library cannot be loaded (x.so: cannot map); free memory"),
        (KeyboardInterrupt(), 130, "stopped; run the same command again to continue.\n"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_errors_are_sentences(error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(lambda: _raising(error)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(told)
    assert err.count("\n") == bool(told)


# A program that does this work.
PROGRAM = "import os, sys; from sketch_search.model.terminal import run_program; sys.exit(run_program(lambda: {}))"


def test_a_reader_of_the_output_that_ends_is_no_error() -> None:
    command = [sys.executable, "-c", PROGRAM.format("print('x' * 200_000) or 0")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == b""


def test_a_closed_output_is_refused_because_results_would_be_lost() -> None:
    command = ["sh", "-c", f'exec "{sys.executable}" -c "$0" >&-', PROGRAM.format("print('found') or 0")]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    said = "error: standard output is closed; send it to a file, or to /dev/null.\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_files_do_not_get_the_numbers_of_closed_streams() -> None:
    work = (
        "print(os.open(os.devnull, os.O_RDONLY) > 2, sys.stdin.read(), file=sys.stdout) or sys.stderr.write('x') and 0"
    )
    command = ["sh", "-c", f'exec "{sys.executable}" -c "$0" <&- 2>&-', PROGRAM.format(work)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True \n")


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
