"""python -m indexer: build an index of photos, look into it, check it."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import faiss
import torch

import model
from indexer.build import DEFAULT_BATCH, BuildReport, build
from indexer.errors import BadInvocation, IndexerError
from indexer.gallery import resolve_roots
from indexer.info import IndexInfo, read_info
from indexer.location import default_index_path
from indexer.progress import Progress
from indexer.samples import write_samples
from indexer.verify import verify
from model.checkpoint import default_checkpoint

_DTYPES = {
    "auto": None,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0: done; 1: ``verify`` found problems; 2: it could not be done, and a sentence says why."""
    options = parser().parse_args(arguments)
    # What Pillow grumbles about a picture says nothing that the report does not say better.
    warnings.filterwarnings("ignore", module=r"PIL\b")
    try:
        return int(options.run(options))
    except (IndexerError, model.ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(
            f"error: {place}{error.strerror or error}; check its name and that it may be read and written.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same build again to go on from here.", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m indexer", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("build", help="index folders of photos, or bring their index up to date")
    command.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="all folders of the gallery")
    _add_index(command)
    command.add_argument("--weights", metavar="FILE", help="checkpoint (default: SBIR_WEIGHTS, else the embedded one)")
    command.add_argument("--clusters", type=int, metavar="N", help="default: about the square root of the photos")
    command.add_argument(
        "--embedder",
        default="auto",
        metavar="auto|ret|clip[:TAG|FILE]",
        help="what photos are clustered by: the checkpoint's [Ret], or CLIP (clip:MODEL/PRETRAINED, clip:MODEL@FILE, "
        "clip:FOLDER); auto takes CLIP only where its weights are on this disk",
    )
    command.add_argument("--device", default=_told("SBIR_DEVICE"), help="auto, cpu or cuda (default: SBIR_DEVICE)")
    command.add_argument(
        "--dtype",
        choices=_DTYPES,
        default=_told("SBIR_DTYPE"),
        help="precision of the network (default: SBIR_DTYPE; SBIR_THREADS says how many CPU threads compute)",
    )
    command.add_argument("--batch", type=int, default=DEFAULT_BATCH, metavar="N", help="files between two commits")
    command.add_argument("--progress-file", type=Path, metavar="FILE", help="JSON, kept up to date while building")
    command.add_argument("--quiet", action="store_true", help="no bar and no report; errors only")
    command.set_defaults(run=run_build)

    command = commands.add_parser("info", help="say what an index holds")
    _add_index(command)
    command.add_argument("--json", action="store_true", help="for machines")
    command.set_defaults(run=run_info)

    command = commands.add_parser("verify", help="check every byte of an index")
    _add_index(command)
    command.set_defaults(run=run_verify)

    command = commands.add_parser("samples", help="draw a sample gallery, and sketches to search it with")
    command.add_argument("folder", type=Path, metavar="DIR", help="gets the folders photos and sketches")
    command.set_defaults(run=run_samples)
    return top


def _add_index(command: argparse.ArgumentParser) -> None:
    command.add_argument("--index", type=Path, metavar="DIR", help="default: SBIR_INDEX, else your data folder")


def _told(name: str) -> str:
    """An environment variable; one that is empty is unset, and so is one that says "auto"."""
    return os.environ.get(name) or "auto"


def _index(options: argparse.Namespace) -> Path:
    return options.index if options.index is not None else default_index_path()


def run_build(options: argparse.Namespace) -> int:
    """build FOLDER..."""
    index = _index(options)
    # Before the network is loaded, so that a slip of the pen is answered at once.
    resolve_roots(options.folders, index)
    if options.clusters is not None and options.clusters < 1:
        raise BadInvocation("the number of clusters must be at least 1.")
    # Choices are checked by argparse only where they come from the command line.
    if options.dtype not in _DTYPES:
        raise BadInvocation(f"SBIR_DTYPE is {options.dtype!r}; set it to one of {', '.join(_DTYPES)}.")
    _use_threads(_told("SBIR_THREADS"))
    weights = options.weights or os.environ.get("SBIR_WEIGHTS") or None
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    matcher = model.load(default_checkpoint(weights), device, _DTYPES[options.dtype])
    report = build(
        options.folders,
        index,
        matcher,
        clusters=options.clusters,
        embedder=options.embedder,
        progress=Progress(bar=not options.quiet, file=options.progress_file),
        batch=options.batch,
    )
    if not options.quiet:
        print("\n".join(_report_lines(report)))
    return 0


def _use_threads(told: str) -> None:
    if told == "auto":
        return
    if not told.isdecimal() or int(told) < 1:
        raise BadInvocation(f"SBIR_THREADS is {told!r}; set it to a number of CPU threads, at least 1, or to auto.")
    torch.set_num_threads(int(told))
    faiss.omp_set_num_threads(int(told))


def _report_lines(report: BuildReport) -> list[str]:
    lines = [_table("not indexed", f"{bad.path}: {bad.reason}") for bad in report.bad]
    duplicates = f" ({report.files} files, {report.duplicates} of them duplicates)" if report.duplicates else ""
    lines.append(_table("photos", f"{report.photos}{duplicates}"))
    lines.append(_table("encoded now", f"{report.encoded}"))
    if report.gone:
        lines.append(_table("gone", f"{report.gone}"))
    if report.bad:
        lines.append(_table("bad", f"{len(report.bad)}, named above"))
    lines.append(_table("clusters", f"{report.clusters}, by {report.embedder}"))
    lines.append(_table("time", f"{report.seconds:.1f} s"))
    state = "now live" if report.changed else "nothing has changed; it stays as it is"
    lines.append(_table("index", f"{report.index}, generation {report.generation}, {state}"))
    return lines


def run_info(options: argparse.Namespace) -> int:
    """info [--json]"""
    info = read_info(_index(options))
    print(info.model_dump_json(indent=1) if options.json else "\n".join(_info_lines(info)))
    return 0


def _info_lines(info: IndexInfo) -> list[str]:
    manifest, counts = info.manifest, info.manifest.counts
    lines = [
        _table("index", f"{info.path}, generation {info.generation}, format {manifest.format_version}"),
        _table("built", f"{manifest.created:%Y-%m-%d %H:%M:%S} UTC by version {manifest.software}"),
        _table("photos", f"{counts.photos} ({counts.files} files, {counts.duplicates} of them duplicates)"),
        _table("bad files", f"{counts.bad}"),
        _table("clusters", f"{counts.clusters}, by {manifest.embedder.description}"),
        _table("network", f"{manifest.network}, {manifest.tokens} tokens of {manifest.width} dims, {manifest.dtype}"),
        _table("checkpoint", manifest.checkpoint_sha256),
        _table("on disk", f"{info.bytes_on_disk / 2**20:.1f} MiB in {len(manifest.segments)} segment(s)"),
    ]
    lines += [_table("root", f"{root.name}: {root.path}") for root in manifest.roots]
    lines += [_table("not indexed", f"{bad.path}: {bad.reason}") for bad in info.bad]
    return lines


def run_verify(options: argparse.Namespace) -> int:
    """verify"""
    index = _index(options)
    problems = verify(index)
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{index} is sound.")
    return 1 if problems else 0


def run_samples(options: argparse.Namespace) -> int:
    """samples DIR"""
    samples = write_samples(options.folder)
    print(
        _table(
            "photos",
            f"{samples.photos}: {samples.drawn} drawn of {samples.things} things, and "
            f"{samples.copied} photos from scikit-learn",
        )
    )
    print(_table("sketches", f"{samples.sketches}: {samples.sketched}"))
    return 0


def _table(name: str, value: str) -> str:
    return f"{name + ':':<13}{value}"


if __name__ == "__main__":
    sys.exit(main())
