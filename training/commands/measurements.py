"""Declares the commands that measure checkpoints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sketch_search import model
from sketch_search.model.command_line import a_path, examples, option
from sketch_search.model.commands import source
from sketch_search.model.engine import METHODS, default_checkpoint, seen_classes
from sketch_search.model.errors import ModelError
from sketch_search.model.files import check_replaceable
from sketch_search.model.limits import MAX_VARIANTS
from sketch_search.training import tasks
from sketch_search.training.corpus import (
    DATA_VARIABLE,
    Corpus,
    data_folder,
    read_data,
    read_more,
    read_protocol,
    read_strokes,
)
from sketch_search.training.evaluation.figures import Evaluation, Resampled, measure

if TYPE_CHECKING:
    from sketch_search.training.evaluation.answers import Contamination


def check_target(target: Path, folder: Path | None = None) -> None:
    """Raises UserError if the checkpoint cannot be written there; the training makes ``folder``."""
    if target.parent != folder and not target.parent.is_dir():
        raise ModelError(f"there is no folder {target.parent} to write {target.name} to; make it first")
    check_replaceable(target)


def target(command: Callable[..., None]) -> Callable[..., None]:
    """Declares the checkpoint that a command writes, and checks it before the command begins."""

    @wraps(command)
    def checked(target: Path, **given: Any) -> None:
        check_target(target)
        command(target=target, **given)

    return click.argument("target", type=a_path, metavar="OUT.safetensors")(checked)


# Options that several commands share.
BACKBONE = "--backbone FILE|TIMM-TAG"

data = option("--data DIR", "sketch/<class>/* and photo/<class>/* (default: the folder in SKETCH_SEARCH_DATA).", a_path)
word_vectors = option("--words FILE", "Word vectors of classes (default: those of SKETCH_SEARCH_DATA).", a_path)
settings = option("--set KEY=VALUE", "Change the recipe, as in optimiser.warmup=20.", name="settings", multiple=True)
weights = option(
    "--weights FILE",
    "Checkpoint (SKETCH_SEARCH_WEIGHTS, else the embedded one).",
    a_path,
    envvar="SKETCH_SEARCH_WEIGHTS",
)
variants = option("--variants N", "Variants of each sketch (the checkpoint's).", click.IntRange(1, MAX_VARIANTS))
part = option("--split NAME", f"Classes: {', '.join(tasks.PARTS)} (val).", click.Choice(tasks.PARTS), default="val")
_GUESSED = ("styles", *tasks.LARGE_PROTOCOLS)
trained_on = option("--trained-on PARTS", "Parts to take fresh pictures from, such as train+val.")
as_json = option("--json", "Print JSON instead of tables.", name="as_json")
_SPLITS = (*tasks.PARTS, *tasks.STANDARD_SPLITS)
_TRAINED_ON = f"""cross-data-set: sketchy (default), tuberlin or quickdraw; with --data: {tasks.STANDARD_SPLITS[0]} and
    so on; generalised, fine-grained, fresh, everything: parts such as train+val."""
# Explanations have no scores: of them "parts" measures where matching patches lie.
_PROTOCOLS = (*tasks.PROTOCOLS, *tasks.REMEMBERED_PROTOCOLS, "parts", "parting")
# "search" ranks as POST /search does by default.
_METHODS = (*METHODS, "search")
_PARTS = ("drawing", "liked", "worded")
_DTYPES = ("auto", "int8", "float32", "bfloat16", "float16")


def _every(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    if not (first.isdecimal() and second.isdecimal() and int(first) and int(second)):
        raise click.BadParameter(f"two numbers from 1 on with a comma between, not {text!r}")
    return int(first), int(second)


@click.command(epilog=examples("python -m training evaluate --split unseen --intervals queries"))
@option("--weights FILE", "Checkpoint (the embedded one); several are compared side by side.", a_path, multiple=True)
@option("--network clip:MODEL", "CLIP's own vectors, such as clip:ViT-B-32@FILE.", name="networks", multiple=True)
@option("--protocol NAME", f"{', '.join(_PROTOCOLS)} (category).", click.Choice(_PROTOCOLS), default="category")
@option("--allow-seen", "Also measure zero-shot protocols on classes that the network has seen.")
@option("--split NAME", f"{', '.join(_SPLITS)} (val, or all of --data).", click.Choice(_SPLITS))
@option("--trained-on NAME", _TRAINED_ON)
@data
@option("--among DIR|TAR.GZ", "scenes, colours: a folder of photos to search among, too.", a_path, multiple=True)
@option("--every S,P", "Use only every S-th sketch and every P-th photo.", _every)
@option(
    "--method NAME", f"{', '.join(_METHODS)} (all but search).", click.Choice(_METHODS), name="methods", multiple=True
)
@option("--by-class", "Figures for each class, with its first 10 results.")
@option("--plain-metrics", "Textbook mAP and P@k, beside those of the papers' code.")
@option("--words", "Large galleries: also search by words of the classes.")
@variants
@option("--device NAME", "cpu, cuda, or auto (cpu).", default="cpu")
@option("--dtype NAME", ", ".join(_DTYPES), click.Choice(_DTYPES), default="auto")
@as_json
@option("--intervals NAME", "95% intervals by resampling queries or classes.", click.Choice(("queries", "classes")))
def evaluate(
    protocol: Any,
    allow_seen: bool,
    split: str | None,
    trained_on: str | None,
    data: Path | None,
    among: tuple[Path, ...],
    every: tuple[int, int] | None,
    methods: tuple[str, ...],
    by_class: bool,
    plain_metrics: bool,
    words: bool,
    as_json: bool,
    intervals: Resampled | None,
    **networks: Any,
) -> None:
    """Measure how well checkpoints retrieve, on the classes of a split or of a folder."""
    from sketch_search.training.evaluation.answers import with_zero_shot

    if protocol == "parts":
        _measure_parts(split, data, as_json, **networks)
        return
    remembered = protocol in (*tasks.REMEMBERED_PROTOCOLS, "parting")
    if remembered and (trained_on or data or every or methods or by_class or words or plain_metrics):
        raise ModelError(f"--protocol {protocol} allows only --split and the options for computing and printing")
    _check_protocol(protocol, among=among, words=words, by_class=by_class, scored=bool(methods or plain_metrics))
    task: tasks.Task | tasks.RememberedTask
    seen = dict[str, "Contamination"]()
    if remembered:
        task = tasks.read_remembered("scenes" if protocol == "parting" else protocol, split or tasks.PARTS[0], among)
    else:
        task = tasks.read_task(protocol, split, trained_on, data)
        task = dataclasses.replace(task.subsample(*every) if every else task, plain=plain_metrics)
        seen = _contaminations(task, networks["weights"], networks["networks"], data)
        if protocol in tasks.ZERO_SHOT_PROTOCOLS and not allow_seen:
            _refuse_seen(protocol, seen)
        task = task.by_class() if by_class else with_zero_shot(task, list(seen.values()))
    evaluations, identities = dict[str, Evaluation](), list[dict[str, object]]()
    for name, matcher in _load_networks(validated=data is None and not remembered, **networks):
        evaluations[name] = _measure(matcher, protocol, task, methods, words=words)
        described = {name: getattr(matcher, name) for name in ("checkpoint_sha256", "dtype", "variants")}
        identities.append({"checkpoint": name, **described})
    evaluation, base = Evaluation.side_by_side(evaluations), next(iter(evaluations))
    resampled, less = intervals or "queries", evaluation.differences(base)
    if as_json:
        result = evaluation.json(resampled) | {"protocol": protocol, "about": task.about}
        result |= {"seen": {name: dataclasses.asdict(classes) for name, classes in seen.items()}} if seen else {}
        differences = less and less.json(resampled)["intervals"]
        compared = {"checkpoints": identities, "compared_with": base, "differences": differences}
        print(json.dumps(result | (identities[0] if len(evaluations) == 1 else compared)))
        return
    said = [evaluation.table(intervals), *(classes.sentence(name) for name, classes in seen.items())]
    said += (f"{protocol}: {sentence}" for sentence in task.about)
    said += [less.table(resampled, f"less {base} by the same method")] if less else []
    print("\n\n".join(said))


def _check_protocol(protocol: str, *, among: Sequence[Path], words: bool, by_class: bool, scored: bool) -> None:
    """Raises ModelError for options that are for other protocols. scored: whether methods or plain metrics are."""
    if among and protocol not in tasks.REMEMBERED_PROTOCOLS:
        raise ModelError(f"--among is for --protocol {', '.join(tasks.REMEMBERED_PROTOCOLS)}")
    if words and protocol not in tasks.LARGE_PROTOCOLS:
        raise ModelError(f"--words is for --protocol {', '.join(tasks.LARGE_PROTOCOLS)}")
    if scored and protocol == "clicks":
        raise ModelError(f"--protocol {protocol} has no --method and no --plain-metrics")
    if by_class and protocol in (*tasks.LARGE_PROTOCOLS, "clicks", "fine-grained"):
        raise ModelError("--by-class is for category protocols")


def _refuse_seen(protocol: str, seen: Mapping[str, Contamination]) -> None:
    """Raises ModelError if a network has seen classes of a zero-shot protocol."""
    if known := [classes.sentence(name) for name, classes in seen.items() if classes.seen]:
        raise ModelError(
            f"{known[0]}. --protocol {protocol} is for classes that a network has not seen: name another --split or "
            "network, or --protocol category; --allow-seen measures anyway"
        )


def _measure(
    matcher: model.Matcher,
    protocol: str,
    task: tasks.Task | tasks.RememberedTask,
    methods: tuple[str, ...],
    *,
    words: bool,
) -> Evaluation:
    from sketch_search.training.evaluation import remembered
    from sketch_search.training.evaluation.scoring import task_matrices

    if not isinstance(task, tasks.Task):
        if protocol == "parting":
            return remembered.measure_parting(matcher, task, read_strokes(data_folder()))
        return remembered.measure_remembered(matcher, task)
    if protocol == "clicks":
        return remembered.measure_clicks(matcher, task)
    return measure(task, task_matrices(matcher, task, methods, words=words))


def _measure_parts(split: str | None, data: Path | None, as_json: bool, **networks: Any) -> None:
    from sketch_search.training.evaluation.answers import measure_parts

    corpus = tasks.read_task("zero-shot", split, None, data).corpus
    drawn = corpus if data is not None else tasks.read_task("fine-grained", split).corpus
    for name, matcher in _load_networks(validated=False, **networks):
        parts = measure_parts(matcher, corpus, drawn)
        if as_json:
            print(json.dumps({"checkpoint": name} | {what: part.json("queries") for what, part in parts.items()}))
        for what, part in {} if as_json else parts.items():
            print(f"{name}, {what}: {part.table('queries')}\n")


def _load_networks(
    weights: tuple[Path, ...], networks: tuple[str, ...], device: str, dtype: Any, variants: int | None, validated: bool
) -> Iterator[tuple[str, model.Matcher]]:
    """Loads the networks to measure one after the other, each with a unique name."""
    for name, path in _name_networks(weights, networks).items():
        yield name, model.load(path, device, None if dtype == "auto" else dtype, variants=variants)
    for name in networks:
        # The threshold of diffusion is chosen on the validation classes, if available, as for networks trained here.
        validation = read_protocol("val").subsample(2, 2) if validated else None
        yield name, clip_matcher(name, validation, device, variants or 1)


def _name_networks(weights: tuple[Path, ...], networks: tuple[str, ...]) -> dict[str, Path]:
    default = os.environ.get("SKETCH_SEARCH_WEIGHTS")
    files = weights or (() if networks else (Path(default) if default else None,))
    paths = [default_checkpoint(file) for file in files]
    names = [path.name for path in paths]
    return {path.name if names.count(path.name) == 1 else str(path): path for path in paths}


def _contaminations(
    task: tasks.Task, weights: tuple[Path, ...], networks: tuple[str, ...], data: Path | None
) -> dict[str, Contamination]:
    """Finds the task's classes that each network has seen, also by the contents of ``data``; unknown for CLIP's."""
    from sketch_search.training.evaluation.answers import contamination

    named = _name_networks(weights, networks).items()
    seen = {name: seen_classes(path) for name, path in named} | dict.fromkeys(networks)
    known = [read(data_folder()) for read in (read_data, read_more)] if data and os.environ.get(DATA_VARIABLE) else []
    training = [picture for corpus in known for picture in (*corpus.sketches, *corpus.photos)]
    return {name: contamination(task, classes, training) for name, classes in seen.items()}


def clip_matcher(network: str, validation: Corpus | None, device: str = "cpu", variants: int = 1) -> model.Matcher:
    """Makes a matcher by CLIP's image vectors, "clip:MODEL"; validation: to choose diffusion. Raises ModelError."""
    from sketch_search.model.torch import ClipAtConfig, TorchEngine, clip_at_network_from, read_clip
    from sketch_search.training.evaluation.scoring import calibrate

    kind, _, source = network.partition(":")
    if kind != "clip" or not source:
        raise ModelError(f"--network {network} is unknown; name clip:MODEL, such as clip:ViT-B-32/laion2b_s34b_b79k")
    encoder = read_clip(source).encoder
    look: dict[str, Any] = {"image_size": encoder.image_size, "mean": encoder.mean, "std": encoder.std}
    config = ClipAtConfig(name=network, vit=encoder.layout, prompts=0, **look)
    plain = clip_at_network_from(config, encoder.weights).requires_grad_(False).to(device).eval()
    if validation is not None:
        plain, _ = calibrate(plain, validation, methods=("ret",))
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in encoder.weights.values())).hexdigest()
    return model.Matcher(TorchEngine(plain.to(device)), digest, variants=variants)


@click.command()
@source
@target
@data
@option("--every S,P", "Use only every S-th sketch and every P-th photo.", _every, default="1,1")
def calibrate(source: Path, target: Path, data: Path | None, every: tuple[int, int]) -> None:
    """Choose how methods are combined, on validation classes: fusion, diffusion, and the best one."""
    from sketch_search.model.torch.checkpoint import load_zse_network
    from sketch_search.training.evaluation.scoring import calibrate
    from sketch_search.training.papers.vocabulary import save_changed

    network = load_zse_network(source)
    methods = [method for method in network.calibration.methods if method != "fused"]
    validation, variants = tasks.read_task(data=data).corpus.subsample(*every), network.calibration.variants
    ready, figures = calibrate(network, validation, methods=methods, variants=variants)
    save_changed(ready, source, target)
    print(f"wrote {target}; mAP@all on validation classes: {figures}")


@click.command()
@source
@target
@option("--most N", "Drawings of each protocol (300).", click.IntRange(1), default=300)
@option("--hidden N", "Search by every N-th also as if nobody had taught its kind (4).", click.IntRange(1), default=4)
@option("--part NAME", f"Weights to fit: {', '.join(_PARTS)} (all).", click.Choice(_PARTS), multiple=True, name="parts")
@option("--beside FILE", "Also search by this checkpoint, trained on other classes.", a_path, multiple=True)
@option("--share SHARE", "Of the way from the weights in use to the fitted (1).", click.FloatRange(0, 1), default=1.0)
def rank(
    source: Path, target: Path, beside: tuple[Path, ...], most: int, hidden: int, parts: tuple[str, ...], share: float
) -> None:
    """Fit how much each term of a search for one thing counts, on validation and trained classes of all protocols."""
    from sketch_search.training.evaluation import terms

    matchers = {str(path): model.load(path) for path in (source, *beside)}
    searches, start = terms.collect(matchers, most, hidden), terms.matrix_of(matchers[str(source)].calibration.weights)
    fitted = start + share * (terms.fit(searches, start, parts or _PARTS) - start)
    calibration = matchers[str(source)].calibration
    terms.save_calibration(source, target, dataclasses.replace(calibration, weights=terms.weights_of(fitted)))
    print(f"{terms.describe(searches, start, fitted)}\n\nwrote {target}")


@click.command()
@source
@click.argument("target", type=a_path, required=False)
@option("--most N", "Drawings of each protocol (60).", click.IntRange(1), default=60)
@as_json
def shown(source: Path, target: Path | None, most: int, as_json: bool) -> None:
    """Measure how far the probability that a photo shows what is asked for is right; with TARGET, fit it before.

    On validation and trained classes; half of the drawings are for the fit, the others are measured.
    """
    from sketch_search.training.evaluation import shown
    from sketch_search.training.evaluation.terms import save_calibration

    matcher = model.load(source)
    weights = matcher.calibration.shown
    if target is not None:
        weights = shown.fit(shown.collect(matcher, most, half=0))
        save_calibration(source, target, dataclasses.replace(matcher.calibration, shown=weights))
    figures = shown.measure(shown.collect(matcher, most, half=1), weights)
    print(json.dumps(figures) if as_json else shown.describe(figures))


@click.command()
@weights
@option("--protocol NAME", f"{', '.join(_GUESSED)} (styles).", click.Choice(_GUESSED), default="styles")
@option("--split NAME", "everything: classes not trained on (val).", click.Choice(tasks.PARTS))
@trained_on
@variants
@as_json
def guesses(
    weights: Path | None, protocol: Any, split: str | None, trained_on: str | None, variants: int | None, as_json: bool
) -> None:
    """Measure how often the words guessed for sketches are right: of all kinds and styles, or of one protocol."""
    from sketch_search.training.evaluation.answers import measure_guesses
    from sketch_search.training.pages import record_table
    from sketch_search.training.papers.guesses import measure_styles

    matcher = model.load(default_checkpoint(weights), variants=variants)
    if protocol != "styles":
        figures = measure_guesses(matcher, tasks.read_task(protocol, split, trained_on))
        print(json.dumps(figures.json("queries")) if as_json else figures.table())
        return
    rows = measure_styles(matcher).rows()
    if as_json:
        print(json.dumps(rows))
        return
    print(record_table("sketches", rows))


@click.command(epilog=examples("python -m training costs zse/paper zse/tiny weights/default.safetensors"))
@click.argument("networks", nargs=-1, metavar="RECIPE|FILE...", required=True)
@settings
@as_json
def costs(networks: tuple[str, ...], settings: tuple[str, ...], as_json: bool) -> None:
    """Count and measure what networks cost: parameters, multiply-adds, and milliseconds of one core.

    Multiply-adds are given in G of a photo and of learning from it, and in M of a pair. A network is that of a recipe,
    or a checkpoint.
    """
    import torch

    from sketch_search.model.torch.checkpoint import load_network
    from sketch_search.training.evaluation.answers import costs_of, speeds_of
    from sketch_search.training.pages import record_table
    from sketch_search.training.papers.recipe import changes_of
    from sketch_search.training.papers.tables import network_of, read_recipe

    torch.set_num_threads(1)
    costs_by_name = {}
    for name in networks:
        checkpoint = Path(name).suffix == ".safetensors"
        network = load_network(Path(name)) if checkpoint else network_of(read_recipe(Path(name), changes_of(settings)))
        costs_by_name[name] = costs_of(network) | speeds_of(network)
    if as_json:
        print(json.dumps(costs_by_name))
        return
    no_pairs_empty = {name: {what: cost or "" for what, cost in row.items()} for name, row in costs_by_name.items()}
    print(record_table("network", no_pairs_empty))


@click.command(epilog=examples("python -m training figures --page docs/quality.md --page README.md"))
@option("--block NAME", "Only this block of them (all).", name="names", multiple=True)
@option(
    "--page PAGE.md", "Write the blocks into this page (only print those of all).", a_path, name="pages", multiple=True
)
def figures(names: tuple[str, ...], pages: tuple[Path, ...]) -> None:
    """Measure the shipped checkpoints, and write the figures of the pages.

    Runs in the checkout. What was measured is kept in build/figures, so that a stopped run goes on.
    """
    from sketch_search.training.pages import Published, rewrite_page

    chosen = Published.read().of([page.as_posix() for page in pages], names)
    for page, blocks in chosen.measure(Path()).items():
        print("\n\n".join(blocks.values()))
        if pages:
            rewrite_page(Path(page), blocks)


COMMANDS = (evaluate, calibrate, rank, shown, guesses, costs, figures)
