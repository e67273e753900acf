"""Tables of ablations: a recipe for each row, all with the same budget and the same start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from model.datasets import read_task, subsampled
from model.errors import ModelError
from model.evaluation import draw_intervals
from model.papers.recipe import RECIPES, Budget, at_budget, keep_text
from model.papers.runs import Run
from model.papers.trainings import Outcome, TrainedRow, markdown, trained_row, with_interval

FOLDER = RECIPES / "ablations"
ANCHOR_FOLDER = RECIPES / "sketch-an-anchor"
# The rows of Table 4 of Sketch-an-Anchor's paper, in its order: Base, A1, A2, B1, B2, Ours.
ANCHOR_ROWS = ("baseline", "visual-anchors", "both-anchors", "randomised", "graph", "whole")
# Rows of the default network and its losses. The paper's ablations need learning rates of their own, which
# ``model.papers.comparison`` looks for.
_OWN = "default*.toml"
# Whose table: the ablations of the default network, or those of Sketch-an-Anchor's paper.
Ablated = Literal["zse", "sketch-an-anchor"]


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
    budget: Budget | None = None,
) -> Outcome:
    """Trains and measures each row on the validation classes; rows that are finished in ``folder`` are kept.

    The plot is of mAP@all by the relation network or, where there is none, by [Ret].

    Args:
        names: of recipes; an empty sequence for all.
        backbone: pretrained weights that all rows start from.
        folder: FOLDER/NAME.safetensors and NAME.json for each row, FOLDER/NAME for its training.
        report: called with sentences about the progress.
        method: whose table.
        words: a file of word vectors, as for a training.
        data, every: as in ``model.evaluation.EvaluationRequest``.
        budget: how many pictures each row sees, and of what size; None for as many as its recipe says.

    Raises ModelError for an unknown row, and a folder of another budget.
    """
    known = ablation_names(method)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ModelError(f"there is no row {unknown[0]!r}; choose among {', '.join(known)}")
    folder.mkdir(parents=True, exist_ok=True)
    corpus = subsampled(read_task("zero-shot", None if data else "val", None, data, "folders").corpus, *every)
    rows = []
    for name in names or known:
        recipe = (ANCHOR_FOLDER if method == "sketch-an-anchor" else FOLDER) / f"{name}.toml"
        if budget is not None:
            text, recipe = at_budget(recipe, budget).text, folder / recipe.name
            keep_text(recipe, text, "rows of another budget")
        run = Run(recipe, backbone, folder / name, folder / f"{name}.safetensors", data, words=words)
        rows.append(trained_row(run, corpus, report))
    best = {row.name: row.figures.get("rn", row.figures["ret"])["map_all"] for row in rows}
    return Outcome(rows, _table(rows), partial(draw_intervals, best, "mAP@all"))


def _table(rows: Sequence[TrainedRow]) -> str:
    """For each method a column of mAP@all with its interval, and Prec@100."""
    methods = {"rn": "relation network", "ret": "[Ret]", "fused": "fused", "vis": "mean visual token"}
    lines = []
    for row in rows:
        found = [row.figures.get(method) for method in methods]
        cells = [
            "" if of is None else f"{with_interval(of['map_all'])}, {of['precision_100'].value:.3f}" for of in found
        ]
        lines.append((row.name, f"{row.parameters / 1e6:.1f} M", *cells))
    return markdown(("row", "parameters", *(f"{title}: mAP@all, Prec@100" for title in methods.values())), lines)
