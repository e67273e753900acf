"""What several commands make of their options."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

import faiss
import torch

import model
from indexer.building import Progress
from indexer.commands.environment import environment
from indexer.errors import BadInvocation
from indexer.store import default_index_path
from model.checkpoint import default_checkpoint
from model.terminal import printable

# As in the service's settings.
MOST_THREADS = 512


def index_of(options: argparse.Namespace) -> Path:
    """The folder of the index."""
    return options.index if options.index is not None else default_index_path()


def open_matcher(options: argparse.Namespace) -> model.Matcher:
    """The checkpoint, on the device, with the number of threads that were asked for.

    Raises:
        BadInvocation: the number of threads makes no sense. ModelError: there is no such checkpoint or device.
    """
    threads = environment("SBIR_THREADS")
    if threads != "auto":
        if not re.fullmatch("[0-9]{1,9}", threads) or not 1 <= int(threads) <= MOST_THREADS:
            raise BadInvocation(
                f"SBIR_THREADS is {threads[:64]!r}; set it to a number of CPU threads, from 1 to {MOST_THREADS}, or to "
                "auto."
            )
        torch.set_num_threads(int(threads))
        faiss.omp_set_num_threads(int(threads))
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # The indexer only encodes photos, which is always done in float32. Looking for a faster precision would take time.
    weights = options.weights or os.environ.get("SBIR_WEIGHTS") or None
    return model.load(default_checkpoint(weights), device, torch.float32)


def progress_of(options: argparse.Namespace) -> Progress:
    """What shows how far a build is."""
    return Progress(bar=not options.quiet, file=options.progress_file)


def print_unless_quiet(options: argparse.Namespace, lines: Sequence[str]) -> None:
    """Print lines of a report."""
    if not options.quiet:
        print(*map(printable, lines), sep="\n", flush=True)
