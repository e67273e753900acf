"""Makes the parts with which every bench begins: options, checkpoint, the gallery's server, the head of its result."""

import argparse
import io
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from sketch_search import model
from sketch_search.model.engine import default_checkpoint, threads
from sketch_search.service.settings import Settings
from sketch_search.training.pages import processor
from tests.benchmarks.results import Result
from tests.programs import started_python

# Published command lines name this folder, whichever one the run wrote to.
OUTPUT = "build/bench"


class Command(argparse.ArgumentParser):
    """A parser with --output, --weights and --quick; --device for a bench that computes, --photos for ``demo``."""

    def __init__(self, name: str, description: str | None, *, device: bool = False, photos: bool = False) -> None:
        super().__init__(prog=f"python -m tests.benchmarks.{name}", description=description)
        self.options = argparse.Namespace(device="cpu")
        self.add_argument("--output", type=Path, required=True, metavar="DIR")
        self.add_argument(
            "--weights", type=Path, metavar="FILE", help="checkpoint (SKETCH_SEARCH_WEIGHTS, or embedded)"
        )
        self.add_argument("--quick", action="store_true", help="the shortest form: it shows that all works, no more")
        if device:
            self.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to compute (cpu)")
        if photos:
            self.add_argument("--photos", type=Path, help="photos to search instead of the sample gallery")

    def begin(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parse the options and make the output folder. ``arguments``: None for those of this process."""
        words = sys.argv[1:] if arguments is None else arguments
        self.parse_args(words, self.options)
        self.options.output.mkdir(parents=True, exist_ok=True)
        told = [OUTPUT if word == str(self.options.output) else word for word in words]
        self._told = f"{self.prog} {shlex.join(told)}"
        return self.options

    def load(self) -> model.Matcher:
        return model.load(self.weights(), self.options.device)

    def weights(self) -> Path:
        """The file of the checkpoint that the options name. Raises ModelError if there is none."""
        return default_checkpoint(self.options.weights or Settings().weights)

    def result(self, name: str, by: str, **fields: Any) -> Result:
        """The result of this run. by: what computes, as from ``by_matcher``; fields: further ones."""
        machine = f"{processor()}; {by}; ONNX Runtime {version('onnxruntime')}"
        return Result(name=name, command=self._told, machine=machine, quick=self.options.quick, **fields)

    def save(self, result: Result) -> None:
        """Write the result to OUTPUT/NAME.json, and print its table."""
        document = self.options.output / f"{result.name.lower().replace(' ', '-')}.json"
        result.save(document)
        print(f"{result.markdown()}\n{document}")


def memory(process: int | str = "self") -> dict[str, float]:
    """Returns the MiB that a process has, by the names that Linux gives them, such as VmRSS."""
    told = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: int(size.split()[0]) / 1024 for name, size in (s.split(":") for s in told if s.endswith(" kB"))}


def by_matcher(matcher: model.Matcher) -> str:
    """Returns the device, threads and precision of a measurement that this process makes with ``matcher``."""
    return _by(matcher.device, threads(), matcher.dtype, matcher.checkpoint_sha256)


def by_server(url: str) -> str:
    """The device, threads and precision of the server at ``url``, which runs here with this process's environment."""
    told = httpx.get(f"{url}/info", timeout=60).json()["model"]
    return _by(told["device"], Settings().threads or threads(), told["dtype"], told["checkpoint_sha256"])


def _by(device: str, count: int, dtype: str, sha256: str) -> str:
    return f"{device}, {count} thread{'s' if count > 1 else ''}, {dtype}, weights {sha256[:8]}"


def turned(sketches: Sequence[bytes], count: int) -> tuple[bytes, ...]:
    """Turns sketches, each time a little more, into so many: a server encodes one and the same only once."""
    pictures = [Image.open(io.BytesIO(sketch)).convert("RGB") for sketch in sketches]
    made = []
    for number in range(count):
        buffer = io.BytesIO()
        angle = 15 * number / count
        pictures[number % len(pictures)].rotate(angle, Image.Resampling.BICUBIC, fillcolor="white").save(buffer, "PNG")
        made.append(buffer.getvalue())
    return tuple(made)


@contextmanager
def demo(options: argparse.Namespace) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    """Starts the demo on a free port as a program: its address after its first search, and its sketches."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        command = ["-m", "service", "demo", str(folder), "--port", "0"]
        for flag, path in (("--photos", options.photos), ("--weights", options.weights)):
            command += [flag, str(path)] if path else []
        log = folder / "log"
        stderr = opened.enter_context(log.open("w"))
        server = opened.enter_context(started_python(*command, errors=stderr))
        assert server.stdout is not None
        url = ""
        for line in server.stdout:
            if line.startswith("sketch-search at "):
                url = line.split()[-1].partition("/?")[0]
            if line.startswith("Draw your own"):
                break
        else:
            raise RuntimeError(f"the server has ended: {log.read_text()[-2000:]}")
        drawn = sorted(folder.glob("samples/sketches/**/*.png")) or sorted(folder.glob("*.png"))
        yield url, tuple(file.read_bytes() for file in drawn)
