"""Random command lines: real commands and options, with plausible and hostile values, in a folder with odd files."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

from indexer.commands import main as index_main
from indexer.commands import parser as index_parser
from model.commands.command_line import main as model_main
from model.commands.command_line import parser as model_parser
from service.commands.command_line import build_parser
from service.commands.command_line import main as service_main
from tests.fuzzing.campaign import Case
from tests.fuzzing.limited import Outcome
from tests.fuzzing.samples import Samples

#: As docs/using.md lists them.
EXIT_CODES = {0, 1, 2, 3, 130, 141}
_PROGRAMS: dict[str, tuple[Callable[[], argparse.ArgumentParser], Callable[[Sequence[str]], int]]] = {
    "indexer": (index_parser, index_main),
    "model": (model_parser, model_main),
    "service": (build_parser, service_main),
}
#: Every path stays below the case's own folder, two levels above which are its own, too: some cases write there.
_HOSTILE = (
    *(
        "",
        " ",
        "-",
        "--",
        "-1",
        "0",
        "1",
        "7",
        "1e300",
        "nan",
        "inf",
        "-inf",
        "9" * 30,
        "٣",
        "1_0",
        "0x10",
        "+1",
        "1.5",
    ),
    *("~", "~nobody-here", "~nobody-here/x", "./~", "~/x", ".", "..", "../..", "photos/..", "./photos//", "a\nb"),
    *("\x1b[2J\x1b[1;1H", "\udcff", "ä", "x" * 300, "x/" * 3000, "%s%n{}", "null", "[]", '{"a":', "a:b", "a=b", "a,b"),
    *("photos", "photos/0.png", "photos/damaged.png", "photos/pipe", "in here/1.png", "0.png", "sketch.png", "index"),
    *(
        "index/CURRENT",
        "tiny.safetensors",
        "broken.safetensors",
        "text.txt",
        "empty",
        "empty folder",
        "link to nothing",
    ),
    *(
        "loop",
        "loop/x",
        "link to a file",
        "closed",
        "/proc/nothing/x",
        "/proc/self/mem",
        "auto",
        "all",
        "cpu",
        "cuda:9",
    ),
    *(
        "meta",
        "clip",
        "ret",
        "clip:x",
        "clip:x/y",
        "clip:photos",
        "clip:a@b",
        "http://[",
        "http://127.0.0.1:1",
        "file:///",
    ),
    *(
        "127.0.0.1",
        "::1",
        "localhost.",
        "256.1.1.1",
        "a b",
        "no-such-host.invalid",
        "65536",
        "build",
        "search",
        "--help",
    ),
)
#: What the argument is made for, by its name in the program.
_PLAUSIBLE: dict[str, tuple[str, ...]] = {
    "folders": ("photos", "photos/in here", "empty folder"),
    "added": ("photos/in here", "more", "photos/2.png"),
    "targets": ("2.png", "in here", "photos/2.png", "in here/1.png"),
    "ids": ("1", "2", "99"),
    "index": ("index", "new index"),
    "weights": ("tiny.safetensors",),
    "sketch": ("sketch.png", "-"),
    "sketches": ("sketch.png",),
    "photos": ("photos/2.png", "more/1.png"),
    "output": ("out",),
    "folder": ("out", "made"),
    "checkpoint": ("tiny.safetensors",),
    "backbone": ("tiny.safetensors", "broken.safetensors"),
    "preset": ("zse-ti16",),
    "data": ("data", "photos"),
    "recipe": ("default", "text.txt"),
    "device": ("cpu", "auto"),
    "port": ("0",),
    "progress_file": ("progress.json",),
    "interval": ("0.5", "1"),
    "keep": ("0.5", "1,0.5", "0.7/0.7/0.7"),
    "every": ("1,1", "2,3"),
    "embedder": ("auto", "ret"),
    "method": ("rn", "ret", "auto"),
    "training": ("photos",),
    "url": ("http://127.0.0.1:1",),
    "source": ("broken.safetensors", "text.txt"),
    "target": ("out.safetensors",),
    "name": ("vit_tiny_patch16_224", "x"),
}
# Seconds after which somebody presses Ctrl-C in a program that goes on until then.
_PATIENT = 4.0
_READY = ("Uvicorn running", "startup complete", "now live", "nothing to do", "up to date")
_SETTINGS = (
    *("SBIR_THREADS", "SBIR_DEVICE", "SBIR_INDEX", "SBIR_WEIGHTS", "SBIR_HOST", "SBIR_NPROBE", "SBIR_DTYPE", "HOME"),
    *("SBIR_GALLERY", "SBIR_ALLOWED_HOSTS", "SBIR_SELECT", "SBIR_MAX_PIXELS", "SBIR_QUEUE", "SBIR_VARIANTS"),
)


class CommandLines:
    """Each program ends with a documented exit code, and without a traceback."""

    name = "command-lines"

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def make(self, chance: Random, folder: Path) -> Case:
        """A command line, and the folder it runs in."""
        work = folder / "around" / "it" / "here"
        _fill(work, self._samples)
        program = chance.choice(("indexer", "indexer", "model", "service", "service"))
        words = _command_line(_PROGRAMS[program][0](), chance)
        settings = {"SBIR_INDEX": str(work / "index"), "SBIR_WEIGHTS": str(work / "tiny.safetensors")}
        settings |= {"HOME": str(work / "home"), "SBIR_PORT": "0", "BROWSER": "true"}
        if chance.random() < 0.15:
            # As a system's environment would be: no zero byte, and bytes that are no UTF-8 as surrogates.
            settings[chance.choice(_SETTINGS)] = chance.choice(_HOSTILE)
        encoding = chance.choice(("utf-8", "utf-8", "utf-8", "ascii"))
        slow = {"samples", "demo"} & {*words}  # they draw pictures for many seconds
        interrupted = chance.choice((0.02, 0.1, 0.3, 1.0)) if slow or chance.random() < 0.1 else None
        changed = {name: value for name, value in settings.items() if str(work) not in value}
        about = f"python -m {program} {' '.join(map(repr, words))}, with {changed}, {encoding}, Ctrl-C {interrupted}"
        return Case(about, run_command, (program, words, work, settings, encoding, interrupted))

    def judge(self, case: Case, outcome: Outcome) -> list[str]:
        """The program and its exit code."""
        program, words = case.arguments[:2]
        assert outcome.code in EXIT_CODES, f"ends with {outcome.code}"
        if outcome.code in (1, 3):
            command = {1: ("verify", "serve", "service"), 3: ("build", "add", "verify", "indexer")}[outcome.code]
            assert {program, *words} & set(command), f"ends with {outcome.code}, which is not documented for it"
        if outcome.code == 2:
            assert outcome.err.strip(), "ends with 2 and does not say why"
        assert "\x1b" not in outcome.out + outcome.err, "an escape sequence reaches the terminal"
        return [f"{program} {outcome.code}"]


def _command_line(parser: argparse.ArgumentParser, chance: Random) -> list[str]:
    words: list[str] = []
    inner = next((a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
    if inner is not None and (chance.random() < 0.95 or inner.required):
        command = chance.choice(sorted(inner.choices))
        words.append(command)
        if command in ("index", "model") and parser.prog == "sketch-search":
            return [*words, *_command_line(_PROGRAMS["indexer" if command == "index" else "model"][0](), chance)]
        parser = inner.choices[command]
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._VersionAction | argparse._SubParsersAction):
            continue
        needed = action.required or not action.option_strings or action.dest == "url"
        if chance.random() < (0.93 if needed else 0.2):
            words += _argument(action, chance)
    # And then a slip of the hand.
    if words and chance.random() < 0.15:
        at = chance.randrange(len(words))
        slips: list[list[str]] = [[], [words[at]] * 2, [chance.choice(_HOSTILE)], [words[at][:-1]], ["--help"]]
        words[at : at + 1] = chance.choice(slips)
    return [word for word in words if "\0" not in word]


def _argument(action: argparse.Action, chance: Random) -> list[str]:
    count = 1
    if action.nargs == 0:
        count = 0
    elif action.nargs in ("*", "+"):
        count = chance.choice((1, 1, 1, 2, 3))
    values = [_value(action, chance) for _ in range(count)]
    if not action.option_strings:
        return values
    option = chance.choice(action.option_strings)
    if len(values) == 1 and option.startswith("--") and chance.random() < 0.3:
        return [f"{option}={values[0]}"]
    return [option, *values]


def _value(action: argparse.Action, chance: Random) -> str:
    if chance.random() < 0.3:
        return chance.choice(_HOSTILE)
    if action.choices is not None:
        return str(chance.choice(sorted(action.choices)))
    if action.dest in _PLAUSIBLE:
        return chance.choice(_PLAUSIBLE[action.dest])
    return chance.choice(("1", "2", "5", "out", "x"))


def _fill(work: Path, samples: Samples) -> None:
    """What the values name."""
    (work / "home").mkdir(parents=True)
    shutil.copytree(samples.photos, work / "photos")
    shutil.copytree(samples.index, work / "index")
    shutil.copytree(samples.photos / "in here", work / "more")
    for half in ("sketch", "photo"):
        for thing in ("a", "b"):
            (work / "data" / half / thing).mkdir(parents=True)
            for number in range(3):
                shutil.copy(samples.photos / "0.png", work / "data" / half / thing / f"{number}.png")
    shutil.copy(samples.weights, work / "tiny.safetensors")
    shutil.copy(samples.sketch, work / "sketch.png")
    (work / "broken.safetensors").write_bytes(samples.weights.read_bytes()[:-9])
    (work / "text.txt").write_text("text = 1\n", encoding="utf-8")
    (work / "empty").touch()
    (work / "empty folder").mkdir()
    (work / "closed").mkdir(mode=0)
    (work / "link to nothing").symlink_to("nowhere")
    (work / "link to a file").symlink_to("text.txt")
    (work / "loop").symlink_to("loop")
    os.mkfifo(work / "photos" / "pipe")
    (work / "photos" / os.fsdecode(b"b\xff\x1b[2J\n.png")).write_bytes((work / "photos" / "2.png").read_bytes())


def run_command(
    program: str, words: Sequence[str], work: Path, settings: dict[str, str], encoding: str, interrupted: float | None
) -> int:
    """The program's own exit code."""
    os.chdir(work)
    for name in [name for name in os.environ if name.startswith("SBIR_")] + ["SKETCH_SEARCH_DATA"]:
        os.environ.pop(name, None)
    os.environ |= settings
    sys.stdout.reconfigure(encoding=encoding)  # type: ignore[union-attr]
    sys.stderr.reconfigure(encoding=encoding)  # type: ignore[union-attr]
    sys.argv = [program, *words]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lasting = {"serve", "demo", "--watch"} & {*words} or (program == "service" and not _names_a_command(words))
    begun = threading.Event()
    if interrupted is not None or lasting:
        threading.Thread(target=_press_ctrl_c, args=(begun, interrupted), daemon=True).start()
    try:
        begun.set()
        return _PROGRAMS[program][1](list(words))
    finally:
        # Ctrl-C may come here, too, where it is no matter of the program any more.
        for _ in range(2):
            with suppress(KeyboardInterrupt):
                signal.signal(signal.SIGINT, signal.SIG_IGN)


def _names_a_command(words: Sequence[str]) -> bool:
    return any(re.fullmatch("search|explain|figures|index|model|evaluate|openapi", word) for word in words)


def _press_ctrl_c(begun: threading.Event, after: float | None) -> None:
    """After so many seconds; None: when the program says that it is ready. And then again."""
    begun.wait()
    end = time.monotonic() + (_PATIENT if after is None else after)
    outputs = [Path(f"/proc/self/fd/{stream}").resolve() for stream in (1, 2)]
    while time.monotonic() < end:
        time.sleep(0.02)
        if after is None and any(mark in output.read_text("utf-8", "replace") for output in outputs for mark in _READY):
            break
    while True:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(_PATIENT)
