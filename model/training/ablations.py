"""Tables of ablations: a recipe for each row, all with the same budget and the same start."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.checkpoint import file_sha256
from model.datasets import read_task, subsampled
from model.errors import ModelError
from model.evaluation import Interval, intervals, measure, score_matrices
from model.matcher import load
from model.training.anchors import is_anchor_recipe, read_anchor_recipe
from model.training.options import Run
from model.training.recipe import RECIPES, read_recipe
from model.training.runs import train

FOLDER = RECIPES / "ablations"
ANCHOR_FOLDER = RECIPES / "sketch-an-anchor"
# The rows of Table 4 of Sketch-an-Anchor's paper, in its order: Base, A1, A2, B1, B2, Ours.
ANCHOR_ROWS = ("baseline", "visual-anchors", "both-anchors", "randomised", "graph", "whole")
# Rows of the default network and its losses. The paper's ablations need learning rates of their own, which
# ``model.comparison`` looks for.
_OWN = "default*.toml"
# Whose table: the ablations of the default network, or those of Sketch-an-Anchor's paper.
Ablated = Literal["zse", "sketch-an-anchor"]


@dataclass(frozen=True)
class AblationRow:
    """One network of the table.

    Attributes:
        name: of its recipe.
        pictures: how many it was trained on, repeats counted.
        parameters: how many numbers its checkpoint holds.
        queries, photos: how many it was measured on.
        figures: for each method "map_all" and "precision_100", with 95% intervals over queries; the method "vis" is the
            mean visual token, without any relation network.
        checkpoint_sha256: of the weights that were measured.
    """

    name: str
    pictures: int
    parameters: int
    queries: int
    photos: int
    figures: dict[str, dict[str, Interval]]
    checkpoint_sha256: str


def ablation_names(method: Ablated = "zse") -> tuple[str, ...]:
    """The names of all rows."""
    if method == "sketch-an-anchor":
        return ANCHOR_ROWS
    return tuple(sorted(path.stem for path in FOLDER.glob(_OWN)))


def ablate(
    names: Sequence[str],
    backbone: str,
    folder: Path,
    report: Callable[[str], object],
    *,
    method: Ablated = "zse",
    words: Path | None = None,
    data: Path | None = None,
    every: tuple[int, int] = (1, 1),
) -> tuple[AblationRow, ...]:
    """Trains and measures each row on the validation classes; rows that are finished in ``folder`` are kept.

    Args:
        names: of recipes; an empty sequence for all.
        backbone: pretrained weights that all rows start from.
        folder: FOLDER/NAME.safetensors and NAME.json for each row, FOLDER/NAME for its training.
        report: called with sentences about the progress.
        method: whose table.
        words: a file of word vectors, as for a training.
        data, every: as in ``model.evaluation.EvaluationRequest``.
    """
    known = ablation_names(method)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ModelError(f"there is no row {unknown[0]!r}; choose among {', '.join(known)}")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in names or known:
        recipe = (ANCHOR_FOLDER if method == "sketch-an-anchor" else FOLDER) / f"{name}.toml"
        report(f"{name}:")
        target = folder / f"{name}.safetensors"
        if not target.exists():
            train(Run(recipe, backbone, folder / name, target, data, words=words), report)
        rows.append(_measured(name, recipe, target, data, every))
    return tuple(rows)


def _measured(name: str, recipe: Path, checkpoint: Path, data: Path | None, every: tuple[int, int]) -> AblationRow:
    task = read_task("zero-shot", None if data else "val", None, data, "folders")
    corpus = subsampled(task.corpus, *every)
    kept, sha256 = checkpoint.with_suffix(".json"), file_sha256(checkpoint)
    expected = {"queries": len(corpus.sketches), "photos": len(corpus.photos), "checkpoint_sha256": sha256}
    if kept.exists():
        found = json.loads(kept.read_text())
        if {key: found.get(key) for key in expected} == expected:
            figures = {
                method: {name: Interval(i["value"], i["low"], i["high"]) for name, i in row.items()}
                for method, row in found["figures"].items()
            }
            return AblationRow(
                name,
                found["pictures"],
                found["parameters"],
                found["queries"],
                found["photos"],
                figures,
                found["checkpoint_sha256"],
            )
    matcher = load(checkpoint)
    result = measure(corpus, score_matrices(matcher, corpus, visual=matcher.token_count("photo") > 1))
    wanted = [method for method in result.methods if not method.endswith("+diffusion")]
    of_method = intervals(result.per_query, "queries")
    row = AblationRow(
        name=name,
        pictures=(read_anchor_recipe if is_anchor_recipe(recipe) else read_recipe)(recipe).pictures,
        parameters=sum(parameter.numel() for parameter in matcher.network.parameters()),
        queries=len(corpus.sketches),
        photos=len(corpus.photos),
        figures={m: {f: of_method[m][f] for f in ("map_all", "precision_100")} for m in wanted},
        checkpoint_sha256=sha256,
    )
    kept.write_text(json.dumps(dataclasses.asdict(row)) + "\n")
    return row


def ablation_table(rows: Sequence[AblationRow]) -> str:
    """The table in Markdown: for each method a column of mAP@all with its interval, and Prec@100."""
    methods = {"rn": "relation network", "ret": "[Ret]", "fused": "fused", "vis": "mean visual token"}
    lines = ["| row | parameters | " + " | ".join(f"{title}: mAP@all, Prec@100" for title in methods.values()) + " |"]
    lines.append("| --- " * (2 + len(methods)) + "|")
    for row in rows:
        cells = []
        for method in methods:
            figures = row.figures.get(method)
            cells.append(
                "" if figures is None else f"{_with_interval(figures['map_all'])}, {figures['precision_100'].value:.3f}"
            )
        lines.append(f"| {row.name} | {row.parameters / 1e6:.1f} M | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _with_interval(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
