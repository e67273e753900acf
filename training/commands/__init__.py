"""The commands of `python -m training`: here those that train and change checkpoints."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sketch_search.model.command_line import CommandGroup, a_path, examples, option, run
from sketch_search.model.commands import source
from sketch_search.model.errors import ModelError
from sketch_search.model.terminal import printable
from sketch_search.training.commands import illustrations
from sketch_search.training.commands import measurements as shared
from sketch_search.training.commands.measurements import target


@click.command()
@click.argument("sources", type=a_path, nargs=-1, required=True, metavar="IN.safetensors...")
@target
def average(sources: tuple[Path, ...], target: Path) -> None:
    """Average the weights of networks trained alike. The calibration is the first one's."""
    from sketch_search.model.torch.checkpoint import average_checkpoints

    average_checkpoints(sources, target)
    print(printable(f"wrote {target}; give it words with python -m training words"))


@click.command(
    epilog=examples(
        "python -m training train zse/tiny --backbone vit_tiny_patch16_224.augreg_in21k_ft_in1k --until 100"
    )
)
@click.argument("recipe", type=a_path)
@option(shared.BACKBONE, "What to start from: a photo side, a ViT as a file or timm tag, or CLIP.")
@option("--start FILE", "Checkpoint of the same kind to continue from.", a_path)
@shared.settings
@option("--seed N", "The recipe's seed.", int)
@option("--run DIR", "Default: runs/NAME-OF-RECIPE.", a_path, name="folder")
@option("--until STEP", "Stop after this step; run again to continue.", int)
@option("--keep WHICH", "The last step, or the best on the validation classes (last).", click.Choice(("last", "best")))
@option("--patience N", "End after N evaluations without a better one; keeps the best.", click.IntRange(min=1))
@option("--out OUT.safetensors", "Default: DIR/final.safetensors.", a_path)
@shared.word_vectors
@option("--device NAME", "cpu, cuda, or auto for a GPU if there is one (cpu).", default="cpu")
@shared.data
def train(
    recipe: Path,
    folder: Path | None,
    out: Path | None,
    device: str,
    settings: tuple[str, ...],
    seed: int | None,
    keep: Any,
    patience: int | None,
    **further: Any,
) -> None:
    """Train a network, or resume a training.

    RECIPE is a TOML file, or the name of one in recipes/ of this package, such as zse/tiny.
    """
    from sketch_search.model.torch import find_device
    from sketch_search.training.papers.recipe import changes_of, merge
    from sketch_search.training.papers.tables import TRAININGS, read_recipe
    from sketch_search.training.papers.trainer import Run

    folder = folder or Path("runs") / recipe.stem
    target = out or folder / "final.safetensors"
    # The quick checks come first: preparing many pictures takes minutes, and a training takes hours.
    read = read_recipe(recipe, merge(changes_of(settings), {} if seed is None else {"seed": seed}))
    shared.check_target(target, folder)
    keep = keep or ("best" if patience else "last")
    if patience and keep == "last":
        raise ModelError("--patience keeps the best step: leave --keep last out")
    watched: dict[str, Any] = {"keep": keep, "patience": patience, **further}
    run = Run(recipe=recipe, folder=folder, target=target, device=find_device(device), **watched)
    TRAININGS[type(read)](read, run)


@click.command()
@source
@option(shared.BACKBONE, "The ViT that labels the photos: a safetensors file or a timm tag.", required=True)
@option("--recipe RECIPE", "Of the photos (two-sided/shipped).", a_path, default=Path("two-sided/shipped"))
@target
@shared.data
def words(source: Path, backbone: str, recipe: Path, target: Path, data: Path | None) -> None:
    """Add a vocabulary to a checkpoint, to find photos by words."""
    from sketch_search.training.papers.vocabulary import give_words

    give_words(source, backbone, target, recipe=recipe, data=data)


@click.command()
@source
@option("--recipe RECIPE", "Of the sketches (two-sided/things).", a_path, default=Path("two-sided/things"))
@target
def things(source: Path, recipe: Path, target: Path) -> None:
    """Teach a checkpoint to guess things, by sketches of all kinds and styles, whole and cut from scenes."""
    from sketch_search.training.papers.guesses import give_guesses

    give_guesses(source, target, recipe=recipe)


@click.command("place-words")
@source
@target
def place_words(source: Path, target: Path) -> None:
    """Add words without photos to a vocabulary, by the text vectors of SKETCH_SEARCH_DATA."""
    from sketch_search.training.papers.placed_words import place_words

    place_words(source, target)


@click.command(epilog=examples("python -m training scenes IN OUT --photos corel --keywords train.csv --words snow"))
@source
@target
@option("--photos DIR", "The photos, at any depth.", a_path, required=True)
@option("--keywords FILE.csv", "A line for each: its name without ending, and its keywords.", a_path, required=True)
@option("--test FILE.csv", "The same for other photos, to print the precision of each word.", a_path)
@option("--words LIST", "The keywords to add, such as snow,beach.", required=True)
def scenes(source: Path, target: Path, words: str, **of_photos: Any) -> None:
    """Add words to a vocabulary from photos with keywords, for scenes that nobody draws."""
    from sketch_search.training.papers.placed_words import give_scenes

    give_scenes(source, target, words=words.split(","), **of_photos)


@click.command()
@source
@target
@option("--recipe RECIPE", "Of the photos of things (two-sided/shipped).", a_path, default=Path("two-sided/shipped"))
@option("--like FILE", "Use the projection of this checkpoint, so that one index serves both (fitted anew).", a_path)
def regions(source: Path, target: Path, recipe: Path, like: Path | None) -> None:
    """Make a checkpoint keep regions of photos, to find several things where they were drawn."""
    from sketch_search.training.papers.vocabulary import give_regions

    give_regions(source, target, recipe=recipe, like=like)


@click.command()
@source
@target
@option("--drawings N", "How many drawings to learn from (22000).", click.IntRange(1), default=22_000)
def parting(source: Path, target: Path, drawings: int) -> None:
    """Teach a checkpoint to divide drawings into their things, on sketches drawn together at random."""
    from sketch_search.training.papers.parting import give_parting

    give_parting(source, target, drawings)


@click.command("photo-side")
@click.argument("encoder")
@target
@option("--second FILE|TIMM-TAG", "A ViT for photos alone, with its classifier over ImageNet-1k (none).")
@option("--device NAME", "cpu, cuda, or auto for a GPU if there is one (cpu).", default="cpu")
def photo_side(encoder: str, target: Path, second: str | None, device: str) -> None:
    """Make the photo side that two-sided networks share.

    ENCODER is the ViT of photos and sketches: timm:NAME, clip:MODEL as open_clip names it, or a safetensors file.
    """
    from sketch_search.model.torch import find_device
    from sketch_search.training.papers.photo_side import make_photo_side

    make_photo_side(encoder, second, target, find_device(device))


@click.command(epilog=examples("python -m training table one-budget --row 'ZSE: tiny'"))
@click.argument("name")
@shared.data
@option(shared.BACKBONE, "The ViT to start from: a file or a timm tag (default: that of SKETCH_SEARCH_DATA).")
@shared.word_vectors
@option("--row NAME", "Only this row (default: all).", name="rows", multiple=True)
@option("--runs DIR", "Default: runs/tables.", a_path, name="folder", default=Path("runs/tables"))
@option("--device NAME", "cpu, cuda, or auto for a GPU if there is one: of the trainings (cpu).", default="cpu")
@option("--sheets DIR", "Read rows from the table's sheet here, and add those that are run.", a_path)
@option("--kept", "Leave out rows that the sheet lacks.")
@option("--plot FILE.svg", "Draw the table's figure with matplotlib.", a_path)
@option("--page PAGE.md", "Write the table between its marks in a page.", a_path)
@shared.as_json
def table(name: str, plot: Path | None, page: Path | None, as_json: bool, **further: Any) -> None:
    """Train and measure the rows of a paper's table; ± is half of the 95% interval over queries.

    NAME is a file in recipes/tables of this package, such as one-budget.
    """
    from sketch_search.training.pages import rewrite_page
    from sketch_search.training.papers.tables import TableRun

    shown = TableRun(**further).run(name)
    content = {"table": shown.table.title, "about": shown.about, "rows": shown.rows, "missing": shown.missing}
    print(json.dumps(content) if as_json else shown.markdown())
    if page:
        rewrite_page(page, {f"table {name}": shown.markdown()})
    if plot:
        shown.plot(plot)
    if failed := [f"{row}: {reason}" for row, reason in shown.missing.items() if reason]:
        raise ModelError("; ".join(failed))


_COMMANDS = (average, train, words, things, place_words, scenes, regions, parting, photo_side, table)
training = CommandGroup(
    "training",
    load=lambda: (*_COMMANDS, *shared.COMMANDS, *illustrations.COMMANDS),
    help="Make, train and measure checkpoints.",
    epilog=examples(
        "python -m training evaluate --data FOLDER",
        "    measure it on FOLDER/sketch/<class>/* against FOLDER/photo/<class>/*",
        "python -m training train my.toml --data FOLDER --start FILE --backbone FILE",
        "    continue from a checkpoint with your own pictures",
    ),
)


def main(arguments: Sequence[str] | None = None, prog: str = "python -m training") -> int:
    """Runs one command, and returns its exit code."""
    return run(training, arguments, prog)
