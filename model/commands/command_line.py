"""The command line of `python -m model`. Nothing slow is imported before `--help` is answered."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from model.terminal import Parser, Subparsers, a_path, as_module, importing, program_parser, run_program

# The base of a parser and of its groups; argparse has no public name for it.
Options: TypeAlias = "argparse._ActionsContainer"
_PROG = as_module("model")
_EXAMPLES = """\
examples:
  {prog} info
      what the embedded checkpoint is: size, methods, tokens, where it is from
  {prog} evaluate --data FOLDER
      figures of it on FOLDER/sketch/<class>/* against FOLDER/photo/<class>/*
  {prog} fetch --list
      public checkpoints and backbones that can be downloaded
  {prog} train my.toml --data FOLDER --start FILE --backbone FILE
      go on from a checkpoint with pictures of your own

{prog} COMMAND --help shows the options of a command.
SBIR_WEIGHTS names the checkpoint where a command is not given one.
"""
# The names that options choose among are repeated here, because the rooms that define them take seconds to import. A
# test compares them.
_DTYPES = ("auto", "int8", "float32", "bfloat16", "float16")
_LARGE = ("fresh", "everything", "everyday")
_METHODS = ("rn", "ret", "fused")
_PARTS = ("val", "unseen", "train")
_PRESETS = ("zse-b16", "zse-s16", "zse-ti16")
_PROTOCOLS = ("zero-shot", "generalised", "cross-data-set", "fine-grained", "within", *_LARGE)
_RESAMPLED = ("queries", "classes")
_STANDARD_SPLITS = ("sketchy_104_21", "sketchy_100_25", "tuberlin_220_30", "quickdraw_80_30")
_VARIANTS = (1, 2, 3)


def main(arguments: Sequence[str] | None = None, prog: str = _PROG) -> int:
    """Run one command.

    Args:
        arguments: the command and its options; None for the arguments of this process.
        prog: what help calls the program, and what sentences tell the user to run.

    Returns the exit code: 0, or the code that ``run_program`` gives to an error.
    """

    def work() -> int:
        options = parser(prog).parse_args(arguments)
        with importing():
            # It is imported late because the libraries of the networks take seconds to load.
            program = importlib.import_module(f"{__package__}.program")
        getattr(program, f"run_{options.command.replace('-', '_')}")(options)
        return 0

    return run_program(
        work, prog=prog, stopped="stopped; the same command continues a training from its last saved state"
    )


def parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """Makes the parser of the command line, for a program that calls itself ``prog``."""
    top, commands = program_parser(prog, "Make, train, measure and inspect checkpoints.", _EXAMPLES)
    _add_checkpoints(commands)
    _add_trainings(commands)
    _add_measurements(commands)
    return top


def _add_checkpoints(commands: Subparsers) -> None:
    command = commands.add_parser("info", help="show what a checkpoint is")
    default = os.environ.get("SBIR_WEIGHTS") or None
    command.add_argument("checkpoint", type=a_path, nargs="?", default=default, help="default: the embedded one")

    command = commands.add_parser("fetch", help="download a public checkpoint or backbone, or list them")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", metavar="NAME", help="as --list prints it")
    which.add_argument("--list", action="store_true", help="print all that are known")
    cache = "default: the Hugging Face cache, where the indexer and timm find it"
    command.add_argument("--out", type=a_path, metavar="DIR", help=cache)

    command = commands.add_parser("convert", help="turn a released file of ZSE-SBIR or CLIP-AT into a checkpoint")
    command.add_argument("source", type=a_path, metavar="RELEASED.pth")
    command.add_argument("target", type=a_path, metavar="OUT.safetensors")

    command = commands.add_parser("init", help="make an untrained checkpoint from a pretrained ViT")
    command.add_argument("preset", choices=_PRESETS)
    _add_backbone(command, "the ViT: a safetensors file or a timm tag")
    command.add_argument("--seed", type=int, default=0, help="of the weights that start random (default: 0)")
    command.add_argument("target", type=a_path, metavar="OUT.safetensors")


def _add_trainings(commands: Subparsers) -> None:
    command = commands.add_parser("words", help="give a checkpoint a vocabulary, to find photos by words")
    command.add_argument("source", type=a_path, metavar="IN.safetensors")
    _add_backbone(command, "the ViT that says what photos show: a safetensors file or a timm tag")
    photos, purpose = Path("two-sided/shipped"), "of the photos (default: two-sided/shipped)"
    command.add_argument("--recipe", type=a_path, metavar="RECIPE", default=photos, help=purpose)
    command.add_argument("target", type=a_path, metavar="OUT.safetensors")
    _add_data(command)

    command = commands.add_parser("average", help="average the weights of networks that were trained alike")
    command.add_argument(
        "sources", type=a_path, nargs="+", metavar="IN.safetensors", help="the first gives calibration"
    )
    command.add_argument("target", type=a_path, metavar="OUT.safetensors")

    command = commands.add_parser("export", help="write the ONNX graphs by which a two-sided network can be run")
    command.add_argument("source", type=a_path, metavar="IN.safetensors")
    command.add_argument("target", type=a_path, metavar="DIR", help="the folder of the graphs is made in it")

    command = commands.add_parser("photo-side", help="make the photo side that two-sided networks share")
    command.add_argument("encoder", type=a_path, help="weights of the ViT of photos and sketches, under timm's names")
    command.add_argument("second", type=a_path, help="weights of the ViT that sees photos alone, with its classifier")
    command.add_argument("target", type=a_path, metavar="OUT.safetensors")

    command = commands.add_parser(
        "train",
        help="train a network, or continue a training",
        epilog="example: %(prog)s paper --backbone vit_tiny_patch16_224.augreg_in21k_ft_in1k --until 100",
    )
    recipe = "a TOML file, or the name of one in recipes/ of this package, such as paper"
    command.add_argument("recipe", type=a_path, metavar="RECIPE", help=recipe)
    _add_backbone(command, "what it starts from: a photo side, a ViT as a file or timm tag, CLIP by open_clip")
    command.add_argument("--start", type=a_path, metavar="FILE", help="two-sided: checkpoint to go on from")
    command.add_argument("--run", type=a_path, dest="folder", metavar="DIR", help="default: runs/NAME-OF-RECIPE")
    command.add_argument("--until", type=int, metavar="STEP", help="stop after this step; the next call continues")
    command.add_argument("--out", type=a_path, metavar="OUT.safetensors", help="default: DIR/final.safetensors")
    vectors = "sketch-an-anchor, clip-at: word vectors, such as word2vec's (default: those of SKETCH_SEARCH_DATA)"
    command.add_argument("--words", type=a_path, metavar="FILE", help=vectors)
    command.add_argument("--device", default="cpu", help="two-sided: cpu, cuda, or auto for a GPU if there is one")
    _add_data(command)


def _add_measurements(commands: Subparsers) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure how well a checkpoint retrieves",
        usage="%(prog)s [--weights FILE | --network clip:MODEL]... [--split NAME | --data DIR] [options]",
        epilog="example: %(prog)s --split unseen --intervals queries",
    )
    several = "checkpoint (default: the embedded one); several --weights and --network are compared side by side"
    command.add_argument("--weights", type=a_path, action="append", metavar="FILE", help=several)
    clip = "CLIP's own vectors, by open_clip, such as clip:ViT-B-32/laion2b_s34b_b79k or clip:ViT-B-32@FILE"
    command.add_argument("--network", action="append", metavar="clip:MODEL", help=clip)
    group = command.add_argument_group("what is measured")
    group.add_argument("--protocol", choices=_PROTOCOLS, default="zero-shot", metavar="NAME", help=_listed(_PROTOCOLS))
    splits = (*_PARTS, *_STANDARD_SPLITS)
    default = " (default: val, or all of --data)"
    group.add_argument("--split", choices=splits, metavar="NAME", help=_listed(splits) + default)
    group.add_argument(
        "--trained-on",
        metavar="NAME",
        help="cross-data-set: sketchy (default), tuberlin or quickdraw; with --data: "
        f"{_STANDARD_SPLITS[0]} and so on; generalised, fine-grained, fresh, everything: parts such as train+val",
    )
    _add_data(group)
    group.add_argument("--every", type=_every, metavar="S,P", help="use every S-th sketch and every P-th photo only")
    methods = f"{_listed(_METHODS)} (default: all)"
    group.add_argument("--method", action="append", dest="methods", choices=_METHODS, metavar="NAME", help=methods)
    each = "figures of each class by itself, with its first 10 results"
    group.add_argument("--by-class", action="store_true", help=each)
    group.add_argument("--words", action="store_true", help="large galleries: also by the word of each sketch's class")
    _add_variants(group)
    group = command.add_argument_group("where it is computed")
    group.add_argument("--device", default="cpu", help="default: cpu")
    group.add_argument("--dtype", choices=_DTYPES, default="auto", metavar="NAME", help=_listed(_DTYPES))
    group = command.add_argument_group("what comes out")
    _add_json(group)
    intervals = "95%% intervals by resampling queries or classes"
    group.add_argument("--intervals", choices=_RESAMPLED, metavar="NAME", help=intervals)

    command = commands.add_parser(
        "table",
        help="train and measure the rows of a paper's table",
        epilog="example: %(prog)s one-budget --budget 2000 --resume",
    )
    command.add_argument("name", metavar="NAME", help="of a file in recipes/tables of this package, such as one-budget")
    _add_data(command)
    vit = "the ViT to start from, a safetensors file or a timm tag (default: that of SKETCH_SEARCH_DATA)"
    command.add_argument("--backbone", metavar="FILE|TIMM-TAG", help=vit)
    command.add_argument("--words", type=a_path, metavar="FILE", help="word vectors, as for train")
    command.add_argument("--budget", type=_positive, metavar="N", help="pictures that each training sees")
    command.add_argument("--row", action="append", dest="rows", metavar="NAME", help="this row only (default: all)")
    command.add_argument("--runs", type=a_path, default="runs/tables", metavar="DIR", help="default: runs/tables")
    command.add_argument("--resume", action="store_true", help="go on with trainings that were stopped")
    command.add_argument("--plot", type=a_path, metavar="FILE.svg", help="draw the table's figure, by matplotlib")
    command.add_argument("--page", type=a_path, metavar="PAGE.md", help="write the table between its marks in a page")
    _add_json(command)

    command = commands.add_parser("composites", help="measure whether matching patches point at the thing drawn")
    _add_weights(command)
    command.add_argument("--split", choices=_PARTS, default="val", help="classes (default: val)")
    command.add_argument("--count", type=int, default=50, help="canvases (default: 50)")
    command.add_argument("--seed", type=int, default=0, help="of their choice (default: 0)")
    _add_json(command)
    _add_data(command)

    command = commands.add_parser("guesses", help="measure how often the words guessed for sketches are right")
    _add_weights(command)
    large = f"{_listed(_LARGE)} (default: everyday)"
    command.add_argument("--protocol", choices=_LARGE, default="everyday", metavar="NAME", help=large)
    command.add_argument("--split", choices=_PARTS, help="everything: classes not trained on (default: val)")
    command.add_argument("--trained-on", metavar="PARTS", help="parts whose fresh sketches are used, such as train+val")
    _add_variants(command)
    _add_json(command)

    command = commands.add_parser(
        "folders",
        help="write the protocol everything as class folders, for a server",
        epilog="example: %(prog)s everything --split unseen; sketch-search index everything/photo",
    )
    command.add_argument("out", type=a_path, metavar="OUT", help="a new folder: OUT/photo, OUT/trained, OUT/unseen")
    command.add_argument("--split", choices=_PARTS, default="val", help="classes not trained on (default: val)")
    command.add_argument("--trained-on", metavar="PARTS", help="parts whose fresh pictures are used, such as train+val")


def _add_backbone(command: Parser, purpose: str) -> None:
    command.add_argument("--backbone", required=True, metavar="FILE|TIMM-TAG", help=purpose)


def _add_data(command: Options) -> None:
    default = "sketch/<class>/* and photo/<class>/* (default: the folder SKETCH_SEARCH_DATA names)"
    command.add_argument("--data", type=a_path, metavar="DIR", help=default)


def _add_variants(command: Options) -> None:
    explained = "variants of each sketch that are encoded: as it is, larger, turned (default: as the checkpoint says)"
    command.add_argument("--variants", type=int, choices=_VARIANTS, help=explained)


def _add_json(command: Options) -> None:
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _add_weights(command: Parser) -> None:
    default, purpose = os.environ.get("SBIR_WEIGHTS") or None, "checkpoint (default: the embedded one)"
    command.add_argument("--weights", type=a_path, default=default, metavar="FILE", help=purpose)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"a number from 1 on, not {text!r}")
    return int(text)


def _every(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    if not (first.isdecimal() and second.isdecimal() and int(first) and int(second)):
        raise argparse.ArgumentTypeError(f"two numbers from 1 on with a comma between, not {text!r}")
    return int(first), int(second)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
