"""Bodies that were made to take long, or memory: the server's own process looks at no more than their beginning."""

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sketch_search.model import images
from sketch_search.model.decoding import pool
from sketch_search.model.images import files
from sketch_search.service.settings import Settings
from tests.benchmarks.results import soak
from tests.pictures import drawing, encoded
from tests.programs import PATIENCE
from tests.service.served import Served, address, running
from tests.service.small_gallery import MAX_UPLOAD

# The first 1,024 bytes, as SECURITY.md says.
BEGINNING = 1024
# Strokes that were forged are passed over.
REFUSED = {200, 400, 415, 422}
# What a request may add to the memory of the server's own process.
MOST_MEMORY = 100 << 20


def filled(begin: bytes, unit: bytes, end: bytes = b"") -> Callable[[int], bytes]:
    return lambda size: begin + unit * ((size - len(begin) - len(end)) // len(unit)) + end


def forged(size: int) -> bytes:
    """A PNG with strokes in a text chunk, as the page saves them, whose sums are right."""
    png, last = encoded(drawing("star", 64))[:-12], encoded(drawing("star", 64))[-12:]
    text = b"iTXtsketch-search\0\0\0\0\0%d\n" % zlib.crc32(png) + filled(b'[{"points":[', b"[],", b"[]]}]\n")(
        size - 600
    )
    return png + struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text)) + last


#: The raw bodies that take most of what reads them, by name, each of so many bytes.
BODIES: dict[str, Callable[[int], bytes]] = {
    "a document type of comments": filled(b"<!DOCTYPE a[", b"<!--x>"),
    "comments": filled(b"", b"<!---->"),
    "percent signs": filled(b"data:,", b"%"),
    "no percent-encoding": filled(b"data:,", b"%zz"),
    "base64 with spaces": filled(b"A" * 64, b"A "),
    "a data URL with spaces": filled(b"data:;base64,", b"A%20"),
    "JSON of keys": lambda size: json.dumps({f"{key:08}": 0 for key in range(size // 15)}).encode(),
    "JSON of lists": filled(b"[", b"[],", b"[]]"),
    "JSON of a text": filled(b'{"image":"', b"\\u00e4", b'"}'),
    "an SVG of elements": filled(b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1">', b"<g/>", b"</svg>"),
    "an SVG of attributes": filled(b'<svg viewBox="0 0 1 1" width="', b"1", b'x"/>'),
    "forged strokes": forged,
    "a GIF of nothing": filled(b"GIF89a\xff\xff\xff\xff\xf7\0\0", b"\0"),
}
#: The fields ``strokes``, too.
STROKES: dict[str, Callable[[int], bytes]] = {
    "no points": filled(b"[", b"[],", b"[]]"),
    "empty points": filled(b'[{"points":[', b"[],", b"[]]}]"),
    "keys": lambda size: json.dumps([{f"{key:08}": 0 for key in range(size // 15)}]).encode(),
    "digits": filled(b'[{"points":[[0.', b"1", b",0]]}]"),
    "too many points": filled(b'[{"points":[', b"[0,0],", b"[0,0]]}]"),
}


def requests(size: int, sketch: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, made in BODIES.items():
        yield name, {"content": made(size)}
    for name, made in STROKES.items():
        yield f"strokes: {name}", {"files": {"file": sketch}, "data": {"strokes": made(size - len(sketch) - 300)}}


def test_only_the_beginning_of_a_body_is_looked_at_in_the_servers_own_process(
    server: Served, sketch: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[int]()

    def noted(function: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def noting(data: bytes) -> Any:
            seen.append(len(data))
            return function(data)

        return noting

    monkeypatch.setattr(files, "_known", noted(files._known))
    for module in (images, pool):
        for name in ("picture_of_body", "read_strokes", "saved_strokes", "read_image_file"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, noted(getattr(module, name)))
    for name, request in requests(MAX_UPLOAD, sketch):
        answer = server.http.post("/search", **request)
        assert answer.status_code in REFUSED, (name, answer.text)
        assert max(seen, default=0) <= BEGINNING, name


@pytest.mark.parametrize(
    "bodies", [pytest.param(1, id="each"), pytest.param(6, marks=pytest.mark.soak, id="a hundred")]
)
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from /proc")
def test_no_body_takes_much_of_the_servers_own_memory(
    settings: Settings, sketch: bytes, tmp_path: Path, bodies: int
) -> None:
    size = settings.max_upload_bytes if bodies == 1 else 10 << 20
    with (
        soak("Hostile bodies of the size limit, each by itself. The server's own process stays within 100 MiB") as run,
        running(settings, tmp_path / "log", SBIR_MAX_UPLOAD_BYTES=str(size)) as process,
        httpx.Client(base_url=address(process), timeout=PATIENCE) as http,
    ):
        folder = Path(f"/proc/{process.pid}")

        def memory(name: str) -> int:
            (line,) = (one for one in (folder / "status").read_text().splitlines() if one.startswith(name))
            return int(line.split()[1]) << 10

        assert http.post("/search", content=sketch).status_code == 200
        for _ in range(bodies):
            for name, request in requests(size, sketch):
                before = memory("VmRSS")
                # The peak starts anew.
                (folder / "clear_refs").write_text("5")
                assert http.post("/search", **request).status_code in REFUSED, name
                assert http.get("/healthz").status_code == 200
                grown = memory("VmHWM") - before
                assert grown <= MOST_MEMORY, (name, grown >> 20)
                run.times, run.grown_mib = run.times + 1, max(run.grown_mib or 0, grown / 2**20)
