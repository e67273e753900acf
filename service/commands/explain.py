"""`sketch-search explain` and `figures`: pictures of why photos match a sketch, or are like a photo."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from model.terminal import Refusal, printable
from service.commands.search import photo_id
from service.engine import Engine, open_matcher
from service.explain import NamedPhoto
from service.schemas import PictureKind
from service.settings import Settings


def explain(
    settings: Settings,
    sketch: Path | None,
    photos: Sequence[Path],
    output: Path,
    *,
    like: str | None,
    kind: PictureKind,
) -> int:
    """Write why ``photos``, or else the best of the index, match a sketch, or are like a photo.

    Args:
        sketch: an image file, of what ``kind`` says; None with ``like``.
        like: a photo of the index that they are compared with: an id, if it has digits only, or else a path.

    Raises:
        Refusal: there is neither a sketch nor a liked photo. BadInvocation: the index has no photo at the path.
        Otherwise as ``Engine.explain_into`` and ``Engine.explain_liked_into``.
    """
    _check_folder(output)
    matcher = open_matcher(settings)
    images = [matcher.open(photo, "photo") for photo in photos]
    with closing(Engine(settings, matcher)) as engine:
        named = [
            NamedPhoto(str(photo), image, engine.entry_of(photo)) for photo, image in zip(photos, images, strict=True)
        ]
        if like is not None:
            written = engine.explain_liked_into(int(photo_id(engine, like)), named, output)
        elif sketch is not None:
            written = engine.explain_into(sketch, named, output, kind=kind)
        else:
            raise Refusal("There is nothing to compare photos with: name a sketch, or a photo with --like.")
    print(*(printable(str(file)) for file in written), sep="\n")
    return 0


def draw_figures(settings: Settings, sketches: Sequence[Path], training: Path | None, output: Path) -> int:
    """Draw the paper's figures 3 to 8, of these sketches. Raises as ``Engine.figures_into``."""
    _check_folder(output)
    with closing(Engine(settings, open_matcher(settings))) as engine:
        written = engine.figures_into(sketches, output, training)
    print(*(printable(str(file)) for file in written), sep="\n")
    if not any(file.name == "figure6.png" for file in written):
        print("figures 6 to 8 are left out: this network has one vector for each picture, and compares no patches")
    elif training is None:
        print("figure8a.png is left out: it shows photos that the network was trained on (--training DIR)")
    return 0


def _check_folder(output: Path) -> None:
    """Raise Refusal where ``output`` cannot be a folder, before anything is computed for it."""
    there = next(place for place in (output, *output.absolute().parents) if place.exists())
    if not there.is_dir():
        raise Refusal(f"--output {output}: {there} is a file; name a folder for the pictures.")
