"""Shows a table that was run: as Markdown, in a page between its marks, and as a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.checkpoint import replacing
from model.errors import ModelError
from model.evaluation import TITLES


@dataclass(frozen=True)
class Shown:
    """A table that was run.

    columns: names of figures, of which the first is compared and drawn. missing: names of rows that were not run, with
    the reason if they were to be. curve: whether the figure has validation figures by pictures seen, or those of rows.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    missing: Mapping[str, str]
    about: str
    curve: bool

    def markdown(self) -> str:
        """Writes the table, and below it what is missing, and where, when and by which command it was made."""
        titles, lines = [TITLES[name] for name in self.columns], []
        for row in self.rows:
            ended = (f"{k}: {'diverged' if v is None else f'{v:.3f}'}" for k, v in row["validation"].items())
            lines.append(
                {"network": row["network"], "ranks by": row["ranks by"]}
                | {name: f"{row[name]:,}" for name in ("pictures", "queries", "photos")}
                | {"validation by factor of the rates": ", ".join(ended)}
                | dict(zip(titles, map(_interval, row["figures"].values()), strict=True))
                | {f"{titles[0]} less the first row": _interval(row["difference"], "+.3f")}
                | {title: f"{value:,.3f}" if value else "" for title, value in row["costs"].items()}
            )
        cells = [list(lines[0]), ["---"] * len(lines[0]), *(list(line.values()) for line in lines)]
        body = "\n".join(f"| {' | '.join(line)} |" for line in cells)
        said = dict.fromkeys(sentence[0].upper() + sentence[1:] for row in self.rows for sentence in row["about"])
        failed = [f"Not run: {name} ({why})" for name, why in self.missing.items() if why]
        left = "; ".join(name for name, why in self.missing.items() if not why)
        notes = [*said, *failed, *([f"Not run: {left}"] if left else [])]
        parts = [f"{self.title}; 95% intervals over queries.", body, "\n".join(f"- {note}." for note in notes)]
        return "\n\n".join(filter(None, [*parts, self.about]))

    def plot(self, target: Path) -> None:
        """Draws the figure of the table to a file. Raises ModelError without matplotlib."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ModelError("plots need matplotlib: pip install matplotlib; the table needs none") from error
        figure, title = Figure(layout="constrained"), self.columns[0]
        axes = figure.subplots()
        for place, row in enumerate(self.rows):
            if self.curve:
                axes.plot(*zip(*row["curve"], strict=True), marker=".", label=row["network"])
            else:
                value, low, high = row["figures"][title].values()
                axes.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", label=row["network"])
        axes.set(xlabel="pictures seen" if self.curve else TITLES[title])
        axes.set(ylabel="mAP@all on validation classes" if self.curve else "rows, the last on top")
        axes.legend()
        figure.savefig(target)


def _interval(found: Mapping[str, float], form: str = ".3f") -> str:
    return f"{found['value']:{form}} ({found['low']:{form}} to {found['high']:{form}})"


def write_block(page: Path, name: str, text: str) -> None:
    """Writes the text between the marks of a table in a page. Raises ModelError if the page lacks the marks."""
    begin, end = f"<!-- begin: table {name} -->\n", f"<!-- end: table {name} -->"
    before, mark, rest = page.read_text(encoding="utf-8").partition(begin)
    _, last, after = rest.partition(end)
    if not mark or not last:
        raise ModelError(f"{page} needs one {begin.strip()} and, after it, one {end}")
    with replacing(page) as partial:
        partial.write_text(f"{before}{begin}{text}\n{end}{after}", encoding="utf-8")
