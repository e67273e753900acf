"""`sketch-search explain` and `figures`: pictures of why photos match a sketch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from model.terminal import Refusal, printable
from service.engine import Engine, open_matcher
from service.explain import NamedPhoto
from service.settings import Settings


def explain(settings: Settings, sketch: Path, photos: Sequence[Path], output: Path) -> int:
    """Write why ``photos``, or else the best of the index, match a sketch. Raises as ``Engine.explain_into``."""
    _check_folder(output)
    matcher = open_matcher(settings)
    named = [NamedPhoto(str(photo), matcher.open(photo, "photo")) for photo in photos]
    with closing(Engine(settings, matcher)) as engine:
        written = engine.explain_into(sketch, named, output)
    print(*(printable(str(file)) for file in written), sep="\n")
    return 0


def draw_figures(settings: Settings, sketches: Sequence[Path], training: Path | None, output: Path) -> int:
    """Draw the paper's figures 3 to 8, of these sketches. Raises as ``Engine.figures_into``."""
    _check_folder(output)
    with closing(Engine(settings, open_matcher(settings))) as engine:
        written = engine.figures_into(sketches, output, training)
    print(*(printable(str(file)) for file in written), sep="\n")
    if training is None:
        print("figure8a.png is left out: it shows photos that the network was trained on (--training DIR)")
    return 0


def _check_folder(output: Path) -> None:
    """Raise Refusal where ``output`` cannot be a folder, before anything is computed for it."""
    there = next(place for place in (output, *output.absolute().parents) if place.exists())
    if not there.is_dir():
        raise Refusal(f"--output {output}: {there} is a file; name a folder for the pictures.")
