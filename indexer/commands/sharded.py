"""The command build with --ray: into shards, on many machines."""

from __future__ import annotations

import argparse
import os

from indexer.commands.options import index_of, print_unless_quiet, progress_of
from indexer.commands.tables import shards_lines
from indexer.commands.telling import tell_unlisted
from indexer.distributed import build_shards
from indexer.errors import BadInvocation


def run_sharded_build(options: argparse.Namespace) -> int:
    """build [FOLDER...] --ray ADDRESS [--shards N]"""
    if options.ray is None:
        raise BadInvocation(
            "--shards and --workers are for a build on many machines; say with --ray where its Ray cluster is."
        )
    for name in ("watch", "moved", "checksum"):
        if getattr(options, name):
            raise BadInvocation(f"--{name} is for one index on one machine; leave it out, or build without --ray.")
    report = build_shards(
        options.folders,
        index_of(options),
        ray=options.ray,
        shards=options.shards,
        weights=options.weights or os.environ.get("SBIR_WEIGHTS") or None,
        device=options.device,
        clusters=options.clusters,
        embedder=options.embedder,
        recluster=options.recluster,
        leave=options.yes,
        workers=options.workers,
        progress=progress_of(options),
        batch=options.batch,
    )
    print_unless_quiet(options, shards_lines(report))
    return tell_unlisted(report)
