"""`sketch-search evaluate`: how good and how fast a running server's answers are, beside the exhaustive search's."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import SecretStr
from tqdm import tqdm

from model.datasets import Picture
from model.metrics import list_metrics
from service.client import Client
from service.commands.labelled import gallery_of, labelled_sketches
from service.comparison import labels_of
from service.schemas import SearchResponse

WARM_UP = 3


@dataclass(frozen=True)
class Figures:
    """One way of searching, over all queries.

    Attributes:
        map: mean average precision of the first k results, divided by min(k, the gallery's photos of the sketch's
            class), 0 to 1.
        map_of_found: the same, divided by the photos of the class that were found, as in the two-stage system's
            paper. Photos that the search lost do not lower it.
        precision: mean share of k results that are of the sketch's class, 0 to 1.
        recall: mean share of the gallery's photos of the sketch's class that are among the first k.
        agreement: mean share of the exhaustive search's first k results that this search found too, 0 to 1.
        pairs: mean number of sketch-centroid and sketch-photo pairs that were scored.
        p50_ms, p95_ms: from the first byte sent to the last byte of the answer, in milliseconds.
    """

    map: float
    map_of_found: float
    precision: float
    recall: float
    agreement: float
    pairs: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class ServerEvaluation:
    """Two-stage searches compared with the exhaustive one.

    Attributes:
        queries: sketches that were searched with.
        photos, clusters: of the server's index.
        k: results looked at.
        searches: by method, then by nprobe as it was asked for: "default", a number, or "all" (the exhaustive search).
    """

    queries: int
    photos: int
    clusters: int
    k: int
    searches: dict[str, dict[str, Figures]]

    def as_dict(self) -> dict[str, object]:
        """The same as plain dicts, for JSON."""
        return dataclasses.asdict(self)


def evaluate(
    url: str,
    key: SecretStr | None,
    *,
    data: Path | None,
    split: str,
    per_class: int,
    k: int,
    methods: Sequence[str] | None,
    nprobes: Sequence[int] | None,
    as_json: bool,
) -> int:
    """Measure the server at ``url`` and print its figures. Raises as ``labelled_sketches`` and ``evaluate_server``."""
    sketches = labelled_sketches(data, per_class, split)
    wanted: tuple[int | None, ...] = (None, *(nprobes or ()))
    with Client(url, None if key is None else key.get_secret_value()) as client:
        model = client.info().model
        chosen = methods or (("auto", *model.methods) if model else ())
        total = len(sketches) * (len(wanted) + 1) * len(chosen)
        with tqdm(desc="searching", unit="search", total=total or None, disable=not sys.stderr.isatty()) as bar:
            result = evaluate_server(client, sketches, k=k, methods=chosen, nprobes=wanted, advance=bar.update)
    print(json.dumps(result.as_dict()) if as_json else figures_table(result))
    return 0


def evaluate_server(
    client: Client,
    sketches: Sequence[Picture],
    *,
    k: int = 10,
    methods: Sequence[str] | None = None,
    nprobes: Sequence[int | None] = (None,),
    advance: Callable[[], object] = lambda: None,
) -> ServerEvaluation:
    """Search with every sketch: by each method, with each nprobe and exhaustively, one search after the other.

    A photo is relevant when the folder that it lies in has the name of the sketch's class. Sketches of classes that
    the gallery has no photo of are left out.

    Args:
        k: results looked at.
        methods: None for "auto" and all that the server offers.
        nprobes: of the two-stage searches; None among them for the server's default.
        advance: called after every search.

    Raises as ``gallery_of``.
    """
    gallery = gallery_of(client, sketches)
    index, sketches = gallery.index, gallery.sketches
    searches: dict[str, dict[str, Figures]] = {}
    wanted: tuple[int | Literal["all"] | None, ...] = (*nprobes, "all")
    for method in methods or ("auto", *gallery.model.methods):
        for picture in sketches[:WARM_UP]:
            client.search(picture.path, k=k, method=method)
        # Each sketch is searched with in every way before the next: a machine that slows down then slows all ways.
        answers: dict[int | str | None, list[tuple[SearchResponse, float]]] = {nprobe: [] for nprobe in wanted}
        for picture in sketches:
            data = picture.path.read_bytes()
            for nprobe in wanted:
                answers[nprobe].append(_timed(client, data, k, nprobe, method))
                advance()
        searches[method] = {
            "default" if nprobe is None else str(nprobe): _figures(
                sketches, answers[nprobe], answers["all"], gallery.relevant, k
            )
            for nprobe in wanted
        }
    return ServerEvaluation(len(sketches), index.photos, index.clusters, k, searches)


def figures_table(result: ServerEvaluation) -> str:
    """The figures as a table for people."""
    head = (f"mAP@{result.k}", "of found", f"P@{result.k}", f"R@{result.k}", "agreement", "pairs", "p50 ms", "p95 ms")
    lines = [
        f"{result.queries} sketches against {result.photos} photos in {result.clusters} clusters, "
        f"first {result.k} results",
        "",
        f"{'method':<8}{'nprobe':<10}" + "".join(f"{name:>10}" for name in head),
    ]
    for method, rows in result.searches.items():
        for nprobe, row in rows.items():
            lines.append(
                f"{method:<8}{nprobe:<10}{row.map:>10.3f}{row.map_of_found:>10.3f}{row.precision:>10.3f}"
                f"{row.recall:>10.3f}{row.agreement:>10.3f}{row.pairs:>10.0f}{row.p50_ms:>10.0f}{row.p95_ms:>10.0f}"
            )
    return "\n".join(lines)


def _timed(
    client: Client, sketch: bytes, k: int, nprobe: int | Literal["all"] | None, method: str
) -> tuple[SearchResponse, float]:
    start = time.perf_counter()
    answer = client.search(sketch, k=k, nprobe=nprobe, method=method)
    return answer, (time.perf_counter() - start) * 1000


def _figures(
    sketches: Sequence[Picture],
    answers: Sequence[tuple[SearchResponse, float]],
    truths: Sequence[tuple[SearchResponse, float]],
    relevant: Counter[str],
    k: int,
) -> Figures:
    lists = [
        list_metrics([picture.label in labels_of(hit) for hit in answer.results], relevant[picture.label], k)
        for picture, (answer, _) in zip(sketches, answers, strict=True)
    ]
    shared = [
        len({r.id for r in answer.results} & {r.id for r in truth.results}) / max(1, len(truth.results))
        for (answer, _), (truth, _) in zip(answers, truths, strict=True)
    ]
    times = [milliseconds for _, milliseconds in answers]
    return Figures(
        map=float(np.mean([one.average_precision for one in lists])),
        map_of_found=float(np.mean([one.average_precision_of_found for one in lists])),
        precision=float(np.mean([one.precision for one in lists])),
        recall=float(np.mean([one.recall for one in lists])),
        agreement=float(np.mean(shared)),
        pairs=float(np.mean([answer.pairs_scored for answer, _ in answers])),
        p50_ms=float(np.percentile(times, 50)),
        p95_ms=float(np.percentile(times, 95)),
    )
