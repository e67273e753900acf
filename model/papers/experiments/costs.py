"""Parameters and multiply-adds of trainings and searches, method by method (Table 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.evaluation import new_figure
from model.papers.costs import StepCosts, step_costs
from model.papers.experiments.trials import markdown

# Sketch-an-Anchor by its paper and on a ViT-Tiny. On a ViT-Tiny, too: ZSE-SBIR by its paper, the default network,
# CLIP-AT and ViT-Ret.
COMPARED = (
    "sketch-an-anchor/paper",
    "sketch-an-anchor/whole",
    "paper",
    "zero-shot",
    "clip-at/category",
    "ablations/vit-ret",
)


@dataclass(frozen=True)
class CostRow:
    """The costs of one recipe, whose name or file ``recipe`` is."""

    recipe: str
    costs: StepCosts


def measure_costs(recipes: Sequence[Path], report: Callable[[str], object]) -> tuple[CostRow, ...]:
    """Counts the costs of each recipe, of any method; nothing is trained, and no data is needed."""
    rows = []
    for recipe in recipes:
        report(f"{recipe}:")
        rows.append(CostRow(str(recipe), step_costs(recipe)))
    return tuple(rows)


def costs_table(rows: Sequence[CostRow]) -> str:
    """A line for each recipe."""
    titles = (
        "recipe",
        "pixels",
        "parameters",
        "with what is only trained",
        "pictures a step",
        "a step, to its losses",
        "with gradients",
        "a photo",
        "a pair",
    )
    lines = []
    for row in rows:
        found = row.costs
        lines.append(
            (
                row.recipe,
                str(found.image_size),
                *(f"{count / 1e6:.1f} M" for count in (found.parameters, found.trained_parameters)),
                str(found.pictures),
                *(f"{macs / 1e9:,.1f} G" for macs in (found.forward_macs, found.step_macs)),
                f"{found.photo_macs / 1e9:.2f} G",
                f"{found.pair_macs / 1e6:.1f} M" if found.pair_macs else "",
            )
        )
    return markdown(titles, lines)


def draw_costs(rows: Sequence[CostRow], picture: Path) -> None:
    """Draws parameters, a training step and a photo side by side."""
    figure = new_figure(9, 3.5)
    values = {
        "million parameters": [row.costs.parameters / 1e6 for row in rows],
        "10⁹ multiply-adds a step": [row.costs.step_macs / 1e9 for row in rows],
        "10⁹ multiply-adds a photo": [row.costs.photo_macs / 1e9 for row in rows],
    }
    names = [row.recipe for row in rows][::-1]
    for axes, (title, of_rows) in zip(figure.subplots(1, len(values), sharey=True), values.items(), strict=True):
        axes.bar_label(axes.barh(names, of_rows[::-1]), fmt="{:,.1f}", padding=3)
        axes.margins(x=0.25)
        axes.set(title=title)
    figure.savefig(picture)
