import os
import re
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sketch_search.model import errors
from sketch_search.model.decoding import READY, Decoders, DecodingProcess, FileInParts, Job, ProcessLimits
from sketch_search.model.images import Preprocessing, open_image
from tests.pictures import ODD_FILES, drawing, encoded, photo
from tests.programs import peak, started_python, wait_until

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
LOSSLESS = ("WEBP", {"lossless": True})
AMPLE = ProcessLimits(cpu_seconds=60, clock_seconds=240, memory=2 << 30)


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(2) as running:
        yield running


@pytest.fixture(scope="module")
def slow() -> bytes:
    return scan_bomb(500, 7_000)


def opened(decoders: Decoders, data: bytes, *, least_side: int | None = None, sketch: bool = False) -> Image.Image:
    return decoders.run(data, Job(least_side=least_side, sketch=sketch)).image


@pytest.mark.parametrize(("released", "padded"), [(False, False), (True, False), (False, True)])
def test_pictures_are_prepared_there_as_they_are_here(decoders: Decoders, released: bool, padded: bool) -> None:
    preprocessing = Preprocessing(96, released=released, padded=padded)
    for modality, data in (("sketch", encoded(drawing("house"))), ("photo", encoded(photo("star", 600), "JPEG"))):
        there = decoders.run(data, Job.preparing(preprocessing, modality)).image
        here = preprocessing.pixels(preprocessing.open(data, modality), modality)
        assert np.array_equal(np.asarray(there), here)
    with pytest.raises(errors.ImageTooLarge):
        decoders.run(encoded(drawing("house")), Job.preparing(preprocessing, "sketch", max_pixels=1000))


def test_many_threads_share_a_few_processes(decoders: Decoders) -> None:
    files = [odd.data for odd in ODD_FILES if odd.opens] * 2
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(partial(opened, decoders), files)) == [open_image(data) for data in files]
    assert 1 <= len(decoders.idle) <= 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_picture_that_takes_too_much_cpu_time_is_a_bad_picture(slow: bytes) -> None:
    with Decoders(1, replace(AMPLE, cpu_seconds=0.05)) as decoders:
        with pytest.raises(errors.CostlyImage, match=r"0\.05 CPU seconds"):
            opened(decoders, slow)
        assert opened(decoders, encoded(drawing("star"))) == drawing("star")


def test_limits_follow_the_pixels_that_a_file_declares_and_not_those_that_are_allowed() -> None:
    limits = ProcessLimits.of(100, 1 << 27)
    assert (limits.cpu_seconds, limits.memory >> 20) == (4, 256)
    small, large = encoded(drawing("star", 64)), Image.new("RGB", (640, 480))
    declared = list[int]()
    files = [
        small,
        *(encoded(large, kind, **more) for kind, more in (("JPEG", {}), ("TIFF", {}), ("GIF", {}), LOSSLESS)),
    ]
    files += [encoded(large, "WEBP"), encoded(large.convert("RGBA"), "WEBP", exif=b"Exif\0\0"), encoded(large, "AVIF")]
    for data in files:
        Job().run(data, declared.append)
    assert {*declared} == {64 * 64, 640 * 480}
    pytest.importorskip("pillow_jxl")
    for size in ((640, 480), (8, 8), (64, 64), (1000, 999), (3, 700), (1920, 1080)):
        declared.clear()
        Job().run(encoded(Image.new("RGB", size), "JXL"), declared.append)
        assert {*declared} == {size[0] * size[1]}
    with pytest.raises(errors.ImageTooLarge):
        Job(max_pixels=99).run(encoded(Image.new("RGB", (10, 10)), "JXL"))


@LINUX
def test_a_picture_that_takes_too_much_memory_is_a_bad_picture_and_the_process_stays() -> None:
    large = encoded(Image.new("L", (6_000, 6_000)))
    with Decoders(1, replace(AMPLE, memory=128 << 20)) as decoders:
        opened(decoders, encoded(drawing("star")))
        (pid,) = decoders.idle
        with pytest.raises(errors.CostlyImage, match="128 MiB of memory"):
            opened(decoders, large)
        assert opened(decoders, encoded(drawing("star"))) == drawing("star")
        assert decoders.idle == (pid,)
    with Decoders(1, replace(AMPLE, memory=1 << 30)) as decoders:
        assert opened(decoders, large).size == (6_000, 6_000)


def test_the_largest_pictures_stay_within_their_limits(decoders: Decoders) -> None:
    noise = Image.effect_noise((1_500, 1_500), 90).resize((3_000, 3_000)).convert("RGB")
    for kind, options in (("JPEG", {"progressive": True}), ("WEBP", {"lossless": True, "quality": 0, "method": 0})):
        data = encoded(noise, kind, **options)
        assert decoders.run(data, Job(max_pixels=9_000_000, longest_side=64)).image.size == (64, 64)


@LINUX
@pytest.mark.parametrize(
    ("kind", "padding"),
    [
        *((kind, b"\xff") for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF", "JPEG2000", "TGA", "TIFF", "JXL")),
        *((kind, b"\0") for kind in ("JPEG", "AVIF")),
    ],
)
def test_padding_behind_a_picture_costs_no_memory(kind: str, padding: bytes) -> None:
    if kind == "JXL":
        pytest.importorskip("pillow_jxl")
    data = encoded(photo("star", 300), kind)
    with Decoders(1) as decoders:
        plain, process = opened(decoders, data), decoders.idle
        before = peak(process[0])
        assert decoders.run(padded(data, padding, 160 << 20), Job()).image == plain
        assert peak(process[0]) - before < 32
        assert decoders.idle == process


def test_a_file_that_cannot_be_read_to_its_end_is_no_bad_picture(decoders: Decoders) -> None:
    data = encoded(photo("star", 1_500))

    def read(start: int, count: int) -> bytes:
        if start:
            raise FileNotFoundError
        return data[:count]

    with pytest.raises(FileNotFoundError):
        decoders.run(FileInParts(len(data), read), Job())
    assert decoders.run(data, Job()).image == open_image(data)


def padded(data: bytes, padding: bytes, more: int) -> FileInParts:
    """A file with so many more bytes behind its picture."""

    def read(start: int, count: int) -> bytes:
        picture = data[start : start + count]
        return picture + padding * (min(count, len(data) + more - start) - len(picture))

    return FileInParts(len(data) + more, read)


@LINUX
def test_strokes_are_read_where_an_earlier_picture_has_left_no_memory_to_load_what_reads_them() -> None:
    strokes, star = b'[{"points": [[0.2, 0.2], [0.5, 0.5]]}]', encoded(drawing("star"))
    job = Job.preparing(Preprocessing(96), "sketch", drawing=True)
    process = DecodingProcess()
    process.run((job, AMPLE, FileInParts.of(star)))
    taken = int(re.findall(r"VmData:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[0]) << 10
    # Python takes memory by the MiB, and what reads strokes needs more than four.
    narrow = replace(AMPLE, memory=taken + (3 << 20))
    read = process.run((replace(job, strokes=len(strokes)), narrow, FileInParts.of(star + strokes))).drawing
    process.close()
    assert read is not None
    assert [len(stroke.points) for stroke in read.strokes] == [2]


def test_a_process_that_was_killed_is_replaced(decoders: Decoders) -> None:
    decoders.start()
    killed = decoders.idle
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
        # It has ended, but whoever started it was not told yet.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    for shape in ("star", "house", "circle"):
        assert opened(decoders, encoded(drawing(shape))) == drawing(shape)
    assert decoders.idle
    assert not set(decoders.idle) & set(killed)


def test_a_process_that_is_killed_while_it_decodes_is_replaced_once() -> None:
    with Decoders(1, AMPLE) as decoders, ThreadPoolExecutor(1) as pool:
        decoders.start()
        (pid,) = decoders.idle
        asked = pool.submit(opened, decoders, scan_bomb(99, 3_000))
        wait_until(lambda: not decoders.idle, "it was not asked")
        os.kill(pid, signal.SIGKILL)
        assert asked.result().size == (3_000, 3_000)


@LINUX
def test_at_the_end_nobody_waits_for_a_picture() -> None:
    with ThreadPoolExecutor(1) as pool:
        with Decoders(1, AMPLE) as decoders:
            decoders.start()
            os.kill(decoders.idle[0], signal.SIGSTOP)
            asked = pool.submit(opened, decoders, encoded(drawing("star")))
            wait_until(lambda: not decoders.idle, "it was not asked")
        with pytest.raises(errors.DecodingUnavailable, match="this program ends"):
            asked.result(AMPLE.clock_seconds / 4)


@LINUX
def test_a_decoder_that_stalls_is_no_fault_of_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Decoders(1, replace(AMPLE, clock_seconds=3)) as decoders:
        decoders.start()
        os.kill(decoders.idle[0], signal.SIGSTOP)
        assert opened(decoders, encoded(drawing("star"))) == drawing("star")
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nprintf %s '{READY.decode()}'\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with Decoders(1, replace(AMPLE, clock_seconds=0.1)) as decoders, pytest.raises(errors.EndedDecoding, match="still"):
        opened(decoders, encoded(drawing("star")))


@LINUX
@pytest.mark.parametrize(
    ("number", "error", "told"),
    [
        (signal.SIGSEGV, errors.UndecodableImage, "crashes"),
        (signal.SIGKILL, errors.EndedDecoding, "the system killed the decoder twice"),
    ],
)
def test_a_picture_that_ends_its_process_every_time_is_refused_by_what_ended_it(
    number: signal.Signals, error: type[Exception], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = tmp_path / "ended"
    program = tmp_path / "python"
    told_ready, asked = f"printf %s '{READY.decode()}'", "head -c 1 > /dev/null"
    program.write_text(f"#!/bin/sh\nulimit -c 0\n{told_ready}\n{asked}\necho >> {ended}\nkill -{int(number)} $$\n")
    program.chmod(0o755)
    with Decoders(1, AMPLE) as decoders:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(program))
            with pytest.raises(error, match=told):
                opened(decoders, encoded(drawing("star")))
        assert ended.read_text() == "\n\n"
        assert opened(decoders, encoded(drawing("star"))) == drawing("star")


@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_program_that_started_it(number: signal.Signals) -> None:
    code = (
        "import sys; from sketch_search.model.decoding import Decoders; decoders = Decoders(1); decoders.start();"
        "print(decoders.idle[0], flush=True); sys.stdin.readline()"
    )
    with started_python("-c", code) as program:
        assert program.stdout is not None
        state = Path(f"/proc/{int(program.stdout.readline())}/stat")

        def has_ended() -> bool:
            try:
                return state.read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                return True

        assert not has_ended()
        os.kill(program.pid, number)
        wait_until(has_ended, "the decoding process is still there")


@LINUX
def test_a_decoding_process_does_not_see_the_service_s_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKETCH_SEARCH_API_KEY", "secret")
    with Decoders(1) as decoders:
        decoders.start()
        assert b"secret" not in Path(f"/proc/{decoders.idle[0]}/environ").read_bytes()


@pytest.mark.parametrize(("data", "kind"), [(b"", errors.UndecodableImage), (b"<html>", errors.UnsupportedImage)])
def test_a_file_that_is_no_picture_costs_no_process(data: bytes, kind: type[Exception]) -> None:
    with Decoders(1) as none:
        with pytest.raises(kind):
            opened(none, data)
        assert none.idle == ()


@cache
def scan_bomb(scans: int = 25_000, side: int = 6_300) -> bytes:
    """A white progressive JPEG in which one scan, of the AC coefficients, is repeated. Each scan visits all blocks."""
    plain = encoded(Image.new("L", (side, side), "white"), "JPEG", progressive=True)
    starts = []
    at = plain.find(b"\xff\xda")
    while at >= 0:
        starts.append(at)
        at = plain.find(b"\xff\xda", at + 2)
    # The second scan, with the Huffman table before it: the first one has the DC coefficients.
    table = plain.rfind(b"\xff\xc4", starts[0], starts[1])
    end = plain.find(b"\xff", starts[1] + 2 + int.from_bytes(plain[starts[1] + 2 : starts[1] + 4], "big"))
    once = plain[table:end]
    return plain[:end] + once * (scans - 1) + b"\xff\xd9"
