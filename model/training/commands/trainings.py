"""Declares the commands that train, and those that make, convert and describe checkpoints."""

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sketch_search.model import engine
from sketch_search.model.command_line import a_path, examples, option
from sketch_search.model.errors import ModelError
from sketch_search.model.terminal import printable
from sketch_search.model.training.commands import measurements as shared

if TYPE_CHECKING:
    from sketch_search.model.training.network import RetNetwork


@click.command()
@click.argument("checkpoint", type=a_path, required=False, envvar="SKETCH_SEARCH_WEIGHTS")
def info(checkpoint: Path | None) -> None:
    """Describe a checkpoint, by default that of SKETCH_SEARCH_WEIGHTS or the embedded one."""
    path = engine.default_checkpoint(checkpoint)
    metadata = engine.read_metadata(path)
    read: engine.CheckpointFiles | RetNetwork
    if importlib.util.find_spec("torch") is None:
        read = engine.read_files(path)
    else:
        from sketch_search.model.training.checkpoint import load_network

        read = load_network(path)
    config, calibration = read.config, read.calibration
    lines = {
        "file": str(path),
        "sha256": engine.file_sha256(path),
        "network": config.name,
        "methods": f"{', '.join(calibration.methods)} (best: {calibration.best_method})",
        "tokens": f"sketch {config.token_count('sketch')}, photo {config.token_count('photo')}, of {config.width} dims",
    }
    if not isinstance(read, engine.CheckpointFiles):
        from sketch_search.model.training.network import ClipAtNetwork

        lines["network"] += f", {sum(tensor.numel() for tensor in read.parameters()) / 1e6:.1f} M parameters"
        if isinstance(read, ClipAtNetwork):
            whose = "shared by" if read.config.shared_norms else "separate for"
            prompts = f"{read.config.prompts} prompts and LayerNorms {whose} sketches and photos"
            lines["clip-at"] = f"{prompts}; the encoder is frozen"
    seen, (fusion, diffusion) = engine.seen_classes(path), (calibration.fusion, calibration.diffusion)
    classes = f"trained on {len(seen.trained)}, chosen on {len(seen.chosen)}" if seen else ""
    untrained = isinstance(config, engine.ModelConfig) and not calibration.relation_trained
    quirks = (name for name, value in vars(config).items() if name.startswith("released_") and value)
    lines |= {
        "fusion weight": "" if fusion is None else f"{fusion:g}",
        "diffusion threshold": "" if diffusion is None else f"cosine {diffusion:g}",
        "vocabulary": f"{len(config.words):,} words" if config.words else "",
        "relation network": "untrained, not offered" if untrained else "",
        "classes seen": classes or "unknown, so zero-shot is unknown",
        **{name: metadata[name] for name in sorted(metadata.keys() - engine.DESCRIPTION)},
        "released quirks": ", ".join(name.removeprefix("released_") for name in quirks),
    }
    for name, value in lines.items():
        if value:
            print(printable(f"{name + ':':<21}{value}"))


@click.command()
@click.argument("source", type=a_path, metavar="RELEASED.pth")
@shared.target
def convert(source: Path, target: Path) -> None:
    """Turn a released file of ZSE-SBIR or CLIP-AT into a checkpoint."""
    from sketch_search.model.training.checkpoint import convert

    convert(source, target)
    print(printable(f"wrote {target}"))


@click.command()
@click.argument("sources", type=a_path, nargs=-1, required=True, metavar="IN.safetensors...")
@shared.target
def average(sources: tuple[Path, ...], target: Path) -> None:
    """Average the weights of networks trained alike. The calibration is the first one's."""
    from sketch_search.model.training.checkpoint import average_checkpoints

    average_checkpoints(sources, target)
    print(printable(f"wrote {target}; give it words with sketch-search model words"))


@click.command()
@shared.source
@click.argument("target", type=a_path, required=False, metavar="[DIR]")
def export(source: Path, target: Path | None) -> None:
    """Write the ONNX graphs that run a two-sided network without PyTorch.

    Their folder is created in DIR, by default where this program looks for it.
    """
    from sketch_search.model.engine.graphs import own_folder, write_graphs

    folder = write_graphs(engine.read_files(source).config, target or own_folder())
    print(printable(f"wrote {folder}"))


@click.command(
    epilog=examples(
        "sketch-search model train zse/tiny --backbone vit_tiny_patch16_224.augreg_in21k_ft_in1k --until 100"
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
@option("--logger NAME", "Also log to tensorboard, if it is installed.", click.Choice(("tensorboard",)))
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
    from sketch_search.model.training.network import find_device
    from sketch_search.model.training.papers.recipe import changes_of, merge
    from sketch_search.model.training.papers.tables import TRAININGS, read_recipe
    from sketch_search.model.training.papers.trainer import Run, check_target

    folder = folder or Path("runs") / recipe.stem
    target = out or folder / "final.safetensors"
    # The quick checks come first: preparing many pictures takes minutes, and a training takes hours.
    read = read_recipe(recipe, merge(changes_of(settings), {} if seed is None else {"seed": seed}))
    check_target(target, folder)
    keep = keep or ("best" if patience else "last")
    if patience and keep == "last":
        raise ModelError("--patience keeps the best step: leave --keep last out")
    watched: dict[str, Any] = {"keep": keep, "patience": patience, **further}
    run = Run(recipe=recipe, folder=folder, target=target, device=find_device(device), **watched)
    TRAININGS[type(read)](read, run)


@click.command()
@shared.source
@option(shared.BACKBONE, "The ViT that labels the photos: a safetensors file or a timm tag.", required=True)
@option("--recipe RECIPE", "Of the photos (two-sided/shipped).", a_path, default=Path("two-sided/shipped"))
@shared.target
@shared.data
def words(source: Path, backbone: str, recipe: Path, target: Path, data: Path | None) -> None:
    """Add a vocabulary to a checkpoint, to find photos by words."""
    from sketch_search.model.training.papers.vocabulary import give_words

    give_words(source, backbone, target, recipe=recipe, data=data)


@click.command()
@shared.source
@option("--recipe RECIPE", "Of the sketches (two-sided/things).", a_path, default=Path("two-sided/things"))
@shared.target
def things(source: Path, recipe: Path, target: Path) -> None:
    """Teach a checkpoint to guess things, by sketches of all kinds and styles, whole and cut from scenes."""
    from sketch_search.model.training.papers.guesses import give_guesses

    give_guesses(source, target, recipe=recipe)


@click.command("place-words")
@shared.source
@shared.target
def place_words(source: Path, target: Path) -> None:
    """Add words without photos to a vocabulary, by the text vectors of SKETCH_SEARCH_DATA."""
    from sketch_search.model.training.papers.placed_words import place_words

    place_words(source, target)


@click.command(epilog=examples("sketch-search model scenes IN OUT --photos corel --keywords train.csv --words snow"))
@shared.source
@shared.target
@option("--photos DIR", "The photos, at any depth.", a_path, required=True)
@option("--keywords FILE.csv", "A line for each: its name without ending, and its keywords.", a_path, required=True)
@option("--test FILE.csv", "The same for other photos, to print the precision of each word.", a_path)
@option("--words LIST", "The keywords to add, such as snow,beach.", required=True)
def scenes(source: Path, target: Path, words: str, **of_photos: Any) -> None:
    """Add words to a vocabulary from photos with keywords, for scenes that nobody draws."""
    from sketch_search.model.training.papers.placed_words import give_scenes

    give_scenes(source, target, words=words.split(","), **of_photos)


@click.command()
@shared.source
@shared.target
@option("--recipe RECIPE", "Of the photos of things (two-sided/shipped).", a_path, default=Path("two-sided/shipped"))
@option("--like FILE", "Use the projection of this checkpoint, so that one index serves both (fitted anew).", a_path)
def regions(source: Path, target: Path, recipe: Path, like: Path | None) -> None:
    """Make a checkpoint keep regions of photos, to find several things where they were drawn."""
    from sketch_search.model.training.papers.vocabulary import give_regions

    give_regions(source, target, recipe=recipe, like=like)


@click.command()
@shared.source
@shared.target
@option("--drawings N", "How many drawings to learn from (22000).", click.IntRange(1), default=22_000)
def parting(source: Path, target: Path, drawings: int) -> None:
    """Teach a checkpoint to divide drawings into their things, on sketches drawn together at random."""
    from sketch_search.model.training.papers.parting import give_parting

    give_parting(source, target, drawings)


@click.command("photo-side")
@click.argument("encoder")
@shared.target
@option("--second FILE|TIMM-TAG", "A ViT for photos alone, with its classifier over ImageNet-1k (none).")
@option("--device NAME", "cpu, cuda, or auto for a GPU if there is one (cpu).", default="cpu")
def photo_side(encoder: str, target: Path, second: str | None, device: str) -> None:
    """Make the photo side that two-sided networks share.

    ENCODER is the ViT of photos and sketches: timm:NAME, clip:MODEL as open_clip names it, or a safetensors file.
    """
    from sketch_search.model.training.network import find_device
    from sketch_search.model.training.papers.photo_side import make_photo_side
    from sketch_search.model.training.papers.trainer import check_target

    check_target(target)
    make_photo_side(encoder, second, target, find_device(device))


@click.command(epilog=examples("sketch-search model table one-budget --row 'ZSE: tiny'"))
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
    """Train and measure the rows of a paper's table.

    NAME is a file in recipes/tables of this package, such as one-budget.
    """
    from sketch_search.model.training.papers.tables import TableRun, write_block

    arguments = "".join(f" --{name} {further[name]}" for name in ("data", "backbone", "words") if further[name])
    shown = TableRun(**further).run(name, f"python -m model table {name}{arguments}")
    content = {"table": shown.table.title, "about": shown.about, "rows": shown.rows, "missing": shown.missing}
    print(json.dumps(content) if as_json else shown.markdown())
    if page:
        write_block(page, name, shown.markdown())
    if plot:
        shown.plot(plot)
    if failed := [f"{row}: {reason}" for row, reason in shown.missing.items() if reason]:
        raise ModelError("; ".join(failed))


COMMANDS = (
    info,
    convert,
    average,
    export,
    train,
    words,
    things,
    place_words,
    scenes,
    regions,
    parting,
    photo_side,
    table,
)
