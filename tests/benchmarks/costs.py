"""What the program costs who installs and uses it, by the commands that the README names; `make bench`.

It is installed into an empty environment, as the README says, and every row is a program run there: no row is measured
in this process. Times of the processor count all threads.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from sketch_search.indexer.samples import draw_sketch
from sketch_search.model.images.files import open_image
from sketch_search.training.corpus import DATA_VARIABLE, data_folder, read_data
from tests.benchmarks.command import Command, by_server, memory, turned
from tests.benchmarks.galleries import draw_gallery
from tests.benchmarks.results import Row
from tests.installations import CHECKOUT, copy_of_the_project

EXTRAS = "server,heic"
SKETCHED = "umbrella"
PHOTOS, QUICK_PHOTOS, ROUNDS, QUICK_ROUNDS, SEARCHES = 400, 8, 3, 1, 20
# So many of the photos are also indexed in the size that phones take them in.
LARGE, QUICK_LARGE = 32, 2
MEGAPIXELS = (4032, 3024)
# Noise of such a photo in mediocre light, in grey levels. Without it the files would be far too small.
_NOISE = 4.0
# The JPEG quality that phones use.
_QUALITY = 92
# As many as the page explains.
EXPLAINED = 6
IMPORT = "from sketch_search import Gallery"
# The most memory of a process, as the system says when it ends.
_PEAK = "print('peak', next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')), flush=True)"
_RUN = f"import atexit; from sketch_search.service.commands import program; atexit.register(lambda: {_PEAK}); program()"


def gather(folder: Path, count: int) -> bool:
    """Puts photos of SKETCH_SEARCH_DATA into ``folder``, or drawn ones where that is not set; whether they are real."""
    if not os.environ.get(DATA_VARIABLE):
        draw_gallery(folder, count)
        return False
    photos = read_data(data_folder()).photos
    folder.mkdir(parents=True)
    for number, photo in enumerate(random.Random(0).sample(photos, count)):
        shutil.copyfile(photo.path, folder / f"{number:05}{photo.path.suffix.lower()}")
    return True


def enlarge(photos: Sequence[Path], folder: Path) -> None:
    """Write these photos as a camera would have taken them: JPEGs of twelve megapixels, with noise."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, _NOISE, (*MEGAPIXELS[::-1], 3)).round().astype(np.int16)
    for number, path in enumerate(photos):
        pixels = np.asarray(open_image(path).resize(MEGAPIXELS, Image.Resampling.BICUBIC))
        noisy = (pixels + np.roll(noise, 101 * number, axis=1)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:03}.jpg", quality=_QUALITY)


def pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def install(folder: Path) -> tuple[Path, Row, Row]:
    """Installs a copy of the project into a new environment. Returns its Python, and rows of downloads and disk."""
    environment, wheels, project = folder / "environment", folder / "wheels", folder / "project"
    project.mkdir()
    copy_of_the_project(project)
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wanted = ["-c", str(CHECKOUT / "constraints.txt"), f"{project}[{EXTRAS}]"]
    before = size(environment)
    subprocess.run([*pip, "download", "--dest", str(wheels), *wanted], check=True)
    subprocess.run([*pip, "install", "--find-links", str(wheels), *wanted], check=True)
    took = time.perf_counter() - begun
    own = sum(file.stat().st_size for file in wheels.glob("sketch_search*"))
    return (
        python,
        {"what": "downloaded by pip, the program itself apart", "MB": (size(wheels) - own) / 1e6, "seconds": took},
        {"what": "installed, with the program", "MB": (size(environment) - before) / 1e6},
    )


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def run(what: str, command: Sequence[str], variables: Mapping[str, str]) -> Row:
    before, begun = os.times(), time.perf_counter()
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    took, after = time.perf_counter() - begun, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    peak = re.search(r"^peak (\d+)$", done.stdout, re.MULTILINE)
    row: Row = {"what": what, "seconds": took, "CPU seconds": used}
    return row | ({"MiB of memory": int(peak[1]) / 1024} if peak else {})


def index(program: Sequence[str], photos: Path, what: str, place: Path, variables: Mapping[str, str]) -> Row:
    count, variables = len(pictures(photos)), {**variables, "SKETCH_SEARCH_INDEX": str(place)}
    row = run(f"`sketch-search index`, {count} {what}", [*program, "index", str(photos)], variables)
    return row | {"photos a second": count / float(row["seconds"] or 1), "MB": size(place) / 1e6}


def least(rows: Sequence[Row]) -> Row:
    """Returns the row of the run that took the processor least: other programs only ever make it more."""
    return min(rows, key=lambda row: float(row["CPU seconds"] or 0))


def served(program: Sequence[str], file: Path, variables: Mapping[str, str], searches: int) -> tuple[list[Row], str]:
    """Measures a server: to its first answer, its own memory after searches and after an explanation, and sketches."""
    sketch = file.read_bytes()
    turns = turned([sketch], 7 * searches + 1)
    drawn, threes = turns[: searches + 1], [turns[n : n + 3] for n in range(searches + 1, len(turns), 3)]
    begun = time.perf_counter()
    command = [*program, "serve", "--port", "0"]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().decode().split()[-1].partition("/?")[0]
            with httpx.Client(base_url=url, timeout=300) as client:
                while client.get("/readyz").is_error:
                    time.sleep(0.01)
                ready = time.perf_counter() - begun
                answers = [client.post("/search", content=one).raise_for_status() for one in drawn]
                at_once = [searched(client, three) for three in threes[::2]]
                grown = [[searched(client, three[:count]) for count in (1, 2, 3)][-1] for three in threes[1::2]]
                own = memory(process.pid)["RssAnon"]
                by_it = "`sketch-search search`, answered by that server"
                asked = [run(by_it, [*program, "search", str(file)], variables) for _ in range(ROUNDS)]
                best = [result["id"] for result in answers[0].json()["results"][:EXPLAINED]]
                located = [
                    client.post("/locate", content=sketch, params={"photo": best}).raise_for_status()
                    for _ in range(searches + 1)
                ]
                client.post("/explain", content=sketch, params={"photo": best[0]}).raise_for_status()
            explained = memory(process.pid)["RssAnon"]
            by = by_server(url)
        finally:
            process.terminate()
    begins = "a server, until it can be asked; its own memory then"
    rows: list[Row] = [
        {"what": begins, "seconds": ready, "MiB of memory": own},
        {
            "what": "the same, once it has explained an answer and has the photos' networks too",
            "MiB of memory": explained,
        },
        least(asked),
    ]
    for part, name in (("encode", "a sketch, encoded by that server"), ("total", "a search, answered by it")):
        spent = [answer.json()["timings_ms"][part] for answer in answers[1:]]
        rows.append({"what": name, "seconds": float(np.median(spent)) / 1000})
    rows.append({"what": "a search of three things at once", "seconds": float(np.median(at_once))})
    rows.append({"what": "of three things, searched also after each of them", "seconds": float(np.median(grown))})
    waited = float(np.median([answer.elapsed.total_seconds() for answer in located[1:]]))
    rows.append(
        {"what": f"where {len(best)} photos show it, the first picture of why, answered by it", "seconds": waited}
    )
    return rows, by


def searched(client: httpx.Client, things: Sequence[bytes]) -> float:
    """Searches by the things of one drawing, and returns the seconds that the server says."""
    answer = client.post("/search", files=[("file", thing) for thing in things]).raise_for_status().json()
    return float(answer["timings_ms"]["total"]) / 1000


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("costs", __doc__)
    options = command.begin(arguments)
    count, rounds = (QUICK_PHOTOS, QUICK_ROUNDS) if options.quick else (PHOTOS, ROUNDS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        real = gather(folder / "photos", count)
        sketch = folder / "sketch.png"
        draw_sketch(SKETCHED).save(sketch)
        if options.quick:  # what is installed here, because a download takes minutes
            python, rows = Path(sys.executable), list[Row]()
        else:
            python, *rows = install(folder)
        variables = {name: value for name, value in os.environ.items() if not name.startswith("SKETCH_SEARCH_")}
        if not options.quick:
            variables.pop("PYTHONPATH", None)
        variables["SKETCH_SEARCH_INDEX"] = str(folder / "index")
        program = [str(python), "-c", _RUN]
        plain = [str(python), "-m", "sketch_search"]
        imported = [run(IMPORT, [str(python), "-c", f"{IMPORT}; {_PEAK}"], variables) for _ in range(rounds)]
        built = index(program, folder / "photos", "photos", folder / "index", variables)
        enlarge(pictures(folder / "photos")[: QUICK_LARGE if options.quick else LARGE], folder / "large")
        large = index(program, folder / "large", "JPEGs of 12 megapixels", folder / "large-index", variables)
        found = [
            run("`sketch-search search`, no server", [*program, "search", str(sketch)], variables)
            for _ in range(rounds)
        ]
        asked, by = served(plain, sketch, variables, 2 if options.quick else SEARCHES)
    command.save(
        command.result(
            "Performance",
            by,
            said=f"{'Photos' if real else 'Drawn pictures'}; medians, and of programs the least of {rounds} runs.",
            rows=[*rows, least(imported), built, large, least(found), *asked],
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
