"""The command line. Nothing slow is imported before `--help` is answered."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from model.terminal import a_folder, a_path, as_module, importing, program_parser, run_program

_PROG = as_module("indexer")
_EXAMPLES = """examples:
  {prog} build ~/Pictures    # once, and again to update
  {prog} build --watch       # stay, and follow changes
  {prog} remove "holiday/blurred.jpg"
  {prog} info
"""


def main(arguments: Sequence[str] | None = None, prog: str = _PROG) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name; None for this process's.
        prog: what the help calls the program, and what sentences tell the user to run.

    Returns:
        the exit code. 0: done; 1: ``verify`` found problems; 3: done, but some folders could not be read; else the code
        that ``run_program`` gives to an error.
    """

    def work() -> int:
        options = parser(prog).parse_args(arguments, argparse.Namespace(prog=prog))
        with importing():
            # Imported late: the libraries of the networks take seconds to load.
            from indexer.commands.running import run_command

        return run_command(options)

    return run_program(work, prog=prog, stopped="stopped; run the same again to go on from here.")


def parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """Makes the parser of the command line, for a program that calls itself ``prog``."""
    top, commands = program_parser(prog, "Build an index of photos, look into it, and look after it.", _EXAMPLES)

    command = commands.add_parser("build", help="index folders of photos, or bring their index up to date")
    command.add_argument(
        "folders",
        nargs="*",
        type=a_folder,
        metavar="FOLDER",
        help="all folders of photos; none: those that the index has",
    )
    command.add_argument(
        "--clusters", type=int, metavar="N", help="default: about the square root of the number of photos"
    )
    command.add_argument("--recluster", action="store_true", help="make the clusters anew, from all photos")
    command.add_argument(
        "--checksum",
        action="store_true",
        help="read every file: finds changes that left size and times as they were",
    )
    command.add_argument(
        "--embedder",
        default="auto",
        metavar="auto|ret|clip[:TAG|FILE]",
        help="what photos are clustered by: the checkpoint's [Ret], or CLIP (clip:MODEL/PRETRAINED, clip:MODEL@FILE or "
        "clip:FOLDER); auto: what the index has, else [Ret]",
    )
    command.add_argument(
        "--tokens",
        choices=["auto", "all", "none"],
        default="auto",
        help="none: an index a fraction as large, which is searched by vectors alone (auto: as the index is, else all)",
    )
    command.add_argument(
        "--moved",
        action="store_true",
        help="the new folder is a renamed one: its photos keep their ids",
    )
    command.add_argument("--yes", action="store_true", help="do not ask where folders that are not named leave")
    command.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="build on many machines, into shards: auto for a Ray cluster that runs, local for one on this machine, or "
        "HOST:PORT of its head",
    )
    command.add_argument(
        "--shards", type=int, metavar="N", help="with --ray: how many shards (default: as many as there are, or one)"
    )
    command.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="with --ray: how many work at once (default: as many as the cluster has CPUs, or GPUs)",
    )
    command.add_argument("--watch", action="store_true", help="stay, and bring the index up to date when photos change")
    command.add_argument(
        "--interval",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="with --watch: time between two looks at the photos (default: 10)",
    )
    _add_computing(command)

    command = commands.add_parser("add", help="add folders to the gallery, or show again what was removed")
    command.add_argument(
        "added",
        nargs="+",
        type=a_folder,
        metavar="PATH",
        help="a folder to add, or a removed file or folder to show again",
    )
    _add_computing(command)

    command = commands.add_parser("remove", help="take photos out of the index; their files stay")
    command.add_argument(
        "targets", nargs="*", metavar="PATH", help="a file or folder of the gallery, on disk or as results show it"
    )
    command.add_argument(
        "--id",
        type=_photo_id,
        action="append",
        default=[],
        dest="ids",
        metavar="N",
        help="a photo by its id, repeatable",
    )
    command.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    command.add_argument("--yes", action="store_true", help="do not ask where more than a tenth of the files leaves")
    _add_index(command)
    command.add_argument("--quiet", action="store_true", help="errors only")

    command = commands.add_parser("info", help="say what an index holds")
    _add_index(command)
    command.add_argument("--json", action="store_true", help="for machines")

    command = commands.add_parser("verify", help="check every byte of an index, and compare the photos with it")
    command.add_argument("--index-only", action="store_true", help="do not read the photos")
    _add_index(command)
    command.add_argument("--quiet", action="store_true", help="no bar; problems only")

    command = commands.add_parser("samples", help="draw a sample gallery, and sketches to search it with")
    command.add_argument("folder", type=a_path, metavar="DIR", help="gets the folders photos and sketches")
    return top


def _add_index(command: argparse.ArgumentParser) -> None:
    command.add_argument("--index", type=a_path, metavar="DIR", help="default: SBIR_INDEX, else your data folder")


def _add_computing(command: argparse.ArgumentParser) -> None:
    _add_index(command)
    command.add_argument("--weights", metavar="FILE", help="checkpoint (default: SBIR_WEIGHTS, else the embedded one)")
    command.add_argument(
        "--device",
        default=os.environ.get("SBIR_DEVICE") or "auto",
        help="auto, cpu or cuda (default: SBIR_DEVICE; SBIR_THREADS says how many CPU threads compute)",
    )
    command.add_argument("--batch", type=int, default=64, metavar="N", help="files between two commits (default: 64)")
    command.add_argument("--progress-file", type=a_path, metavar="FILE", help="JSON, kept up to date while building")
    command.add_argument("--quiet", action="store_true", help="no bar and no report; errors only")


def _photo_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise argparse.ArgumentTypeError(f"an id is a number such as 17, not {text!r}")
    return int(text)
