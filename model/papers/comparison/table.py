"""The methods of the comparison, its rows, and their tables and plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import ModelError
from model.evaluation import Interval, draw_lines
from model.papers.trainings import markdown, with_interval


@dataclass(frozen=True)
class ComparedMethod:
    """One row.

    Attributes:
        name: on the command line, and of its files.
        title: in the table.
        recipe: a file, or the name of one that comes with the program.
        trained: False for a network that is measured as it starts.
    """

    name: str
    title: str
    recipe: Path
    trained: bool = True


METHODS = (
    ComparedMethod("untrained", "ViT-Ret, not trained", Path("ablations/vit-ret"), trained=False),
    ComparedMethod("vit-ret", "ViT-Ret: triplets", Path("ablations/vit-ret")),
    ComparedMethod("vit-vis", "ViT-Vis: triplets", Path("ablations/vit-vis")),
    ComparedMethod("vit-mcc", "ViT-Ret: triplets and MCC", Path("ablations/vit-mcc")),
    ComparedMethod("zse-paper", "ZSE: the paper's network and losses", Path("ablations/full")),
    ComparedMethod("zse-default", "ZSE: this project's head and losses", Path("comparison/zse")),
    ComparedMethod("anchor-baseline", "Sketch-an-Anchor: baseline", Path("sketch-an-anchor/baseline")),
    ComparedMethod("anchor-whole", "Sketch-an-Anchor: whole", Path("sketch-an-anchor/whole")),
    ComparedMethod("clip-at", "CLIP-AT: prompts and LayerNorms", Path("comparison/clip-at")),
)
# Table 3 of the paper of ZSE-SBIR. They are not compared unless they are named.
ABLATIONS = (
    ComparedMethod("without-ca", "ZSE by the paper, w/o CA", Path("ablations/without-ca")),
    ComparedMethod("without-sa", "ZSE by the paper, w/o SA (ResNet-50, untrained)", Path("ablations/without-sa")),
    ComparedMethod("without-cos-k", "ZSE by the paper, w/o Cos-K", Path("ablations/without-cos-k")),
    ComparedMethod("without-rn-loss", "ZSE by the paper, w/o RN loss", Path("ablations/without-rn-loss")),
    ComparedMethod("without-ret", "ZSE by the paper, w/o [Ret]", Path("ablations/without-ret")),
    ComparedMethod("without-l-tok", "ZSE by the paper, w/o L-Tok", Path("ablations/without-l-tok")),
)


def all_methods() -> tuple[ComparedMethod, ...]:
    """All that may be compared, in the order of the table."""
    return METHODS + ABLATIONS


def chosen_methods(names: Sequence[str]) -> tuple[ComparedMethod, ...]:
    """The methods of these names, in the order of the table; METHODS for none. Raises ModelError for an unknown one."""
    known = all_methods()
    if unknown := sorted(set(names) - {method.name for method in known}):
        listed = ", ".join(method.name for method in known)
        raise ModelError(f"there is no method {unknown[0]!r} to compare; choose among {listed}")
    return tuple(method for method in known if method.name in names) if names else METHODS


@dataclass(frozen=True)
class Retrieval:
    """Category retrieval by one ranking: means over queries, with 95% intervals over queries."""

    map_all: Interval
    precision_100: Interval

    @property
    def cell(self) -> str:
        """Both figures, for a table."""
        return f"{with_interval(self.map_all)}, {self.precision_100.value:.3f}"


@dataclass(frozen=True)
class Ranked:
    """The figures of one gallery.

    Attributes:
        queries, photos: how many were measured.
        plain, diffused: by the checkpoint's scores, and after score diffusion.
    """

    queries: int
    photos: int
    plain: Retrieval
    diffused: Retrieval


@dataclass(frozen=True)
class Figures:
    """All that was measured with one checkpoint. Nothing was chosen by it.

    Attributes:
        method: by which it scored: its best one on the validation classes.
        unseen: unseen classes alone.
        everything: unseen classes in a gallery with photos of trained classes and ordinary photos (generalised).
        instances: acc@1, finding the photo that a sketch was drawn from among those of its class; without diffusion.
        chance: acc@1 of a random order.
        instance_queries: the sketches of that.
        photo_ms: to encode a photo, in milliseconds.
        query_ms: to encode a sketch and score all photos of ``unseen``, without diffusion.
        threads: that computed this.
        photo_bytes: what the method needs of a photo in an index: [Ret] in float32 and, where tokens are compared,
            these in a byte a number.
        parameters: how many numbers the checkpoint holds.
        sha256: of the checkpoint.
    """

    method: str
    unseen: Ranked
    everything: Ranked
    instances: Interval
    chance: float
    instance_queries: int
    photo_ms: float
    query_ms: float
    threads: int
    photo_bytes: int
    parameters: int
    sha256: str


@dataclass(frozen=True)
class Point:
    """mAP@all on a share of the validation classes after so many pictures: by [Ret] or relation network, the higher."""

    pictures: int
    val: float


@dataclass(frozen=True)
class TrainedRate:
    """A training at one learning rate.

    Attributes:
        rate: of the pretrained ViT.
        seconds: of all steps.
        curve: in the order of pictures seen; the last point is the end.
    """

    rate: float
    seconds: float
    curve: tuple[Point, ...]


@dataclass(frozen=True)
class Chosen:
    """A checkpoint that was chosen on the validation classes, and its figures.

    Attributes:
        rate: None for a network that was not trained.
        at: where on the curve of its training it is.
    """

    rate: float | None
    at: Point
    figures: Figures


@dataclass(frozen=True)
class Peak:
    """A checkpoint of an earlier moment than the end, chosen on the validation classes.

    Attributes:
        rate: of the training.
        at: where on its curve.
        method: as in ``Figures``.
        unseen: unseen classes alone. The other galleries are measured by the end only: to compare all pairs takes long.
        sha256: of the checkpoint.
    """

    rate: float
    at: Point
    method: str
    unseen: Ranked
    sha256: str


@dataclass(frozen=True)
class ComparisonRow:
    """One row.

    Attributes:
        name, title: of the method.
        image_size: side of the pictures.
        rates: its trainings; empty for a network that was not trained.
        final: the end of the training with the best end.
        peak: where the validation was best among all moments of all trainings; None where that is ``final``.
    """

    name: str
    title: str
    image_size: int
    rates: tuple[TrainedRate, ...]
    final: Chosen
    peak: Peak | None


_RANKED_BY = {"rn": "relation network", "ret": "[Ret]", "fused": "fused"}


def comparison_table(rows: Sequence[ComparisonRow]) -> str:
    """Quality, the same at the peaks, and costs: a table each, with what was counted above."""
    first = rows[0].final.figures
    seen = max(row.final.at.pictures for row in rows)
    lines = [
        f"Every training sees {seen:,} pictures of {rows[0].image_size} pixels, or the last whole step before. "
        f"{first.unseen.queries:,} queries against {first.unseen.photos:,} photos of unseen classes; "
        f"{first.everything.queries:,} queries against {first.everything.photos:,} photos of everything; "
        f"acc@1 of {first.instance_queries:,} sketches (by chance {first.chance:.3f}).",
        "",
        _quality(rows),
    ]
    if peaks := [(row.title, row.peak) for row in rows if row.peak is not None]:
        lines += ["", "Where the validation was best before the end, that network on unseen classes alone:", ""]
        lines.append(_peaks(peaks))
    return "\n".join([*lines, "", _costs(rows)])


def draw_comparison(rows: Sequence[ComparisonRow], picture: Path) -> None:
    """Draws mAP@all on validation classes over pictures seen, by each method at its best rate.

    picture: a file whose ending says the format. Raises ModelError without matplotlib.
    """
    series = {
        row.title: [(point.pictures, point.val) for point in rate.curve]
        for row in rows
        for rate in row.rates
        if rate.rate == row.final.rate
    }
    level = next((("not trained", row.final.at.val) for row in rows if row.final.rate is None), None)
    draw_lines(series, "pictures seen", "mAP@all on validation classes", picture, bottom=0, level=level)


# A table of quality says first of a network what it is, and what was chosen on the validation classes.
_CHOICE = ("network", "ranks by", "rate", "pictures", "validation")
_UNSEEN = ("unseen: mAP@all, Prec@100", "diffused")


def _quality(rows: Sequence[ComparisonRow]) -> str:
    titles = (*_CHOICE, *_UNSEEN, "unseen in everything: mAP@all, Prec@100", "diffused", "acc@1")
    lines = []
    for row in rows:
        figures = row.final.figures
        choice = _choice(row.title, figures.method, row.final.rate, row.final.at)
        instances = with_interval(figures.instances)
        lines.append((*choice, *_rankings(figures.unseen), *_rankings(figures.everything), instances))
    return markdown(titles, lines)


def _peaks(found: Sequence[tuple[str, Peak]]) -> str:
    lines = [(*_choice(title, p.method, p.rate, p.at), *_rankings(p.unseen)) for title, p in found]
    return markdown((*_CHOICE, *_UNSEEN), lines)


def _choice(title: str, method: str, rate: float | None, at: Point) -> tuple[str, ...]:
    return title, _RANKED_BY[method], "" if rate is None else f"{rate:g}", f"{at.pictures:,}", f"{at.val:.3f}"


def _costs(rows: Sequence[ComparisonRow]) -> str:
    titles = (
        "network",
        "parameters",
        "rates, and where each training ended on validation",
        "minutes a training",
        "ms a photo",
        "ms a query",
        "bytes a photo",
    )
    lines = []
    for row in rows:
        figures = row.final.figures
        minutes = sum(rate.seconds for rate in row.rates) / 60 / max(1, len(row.rates))
        lines.append(
            (
                row.title,
                f"{figures.parameters / 1e6:.1f} M",
                ", ".join(f"{rate.rate:g}: {rate.curve[-1].val:.3f}" for rate in row.rates),
                f"{minutes:.1f}" if row.rates else "",
                f"{figures.photo_ms:.1f}",
                f"{figures.query_ms:.1f}",
                f"{figures.photo_bytes:,}",
            )
        )
    return markdown(titles, lines)


def _rankings(found: Ranked) -> tuple[str, str]:
    return found.plain.cell, found.diffused.cell
