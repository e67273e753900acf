"""python -m model: make, train, measure and look into checkpoints."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.backbone import from_backbone, read_backbone
from model.baselines import backbone_matcher, backbone_matrices
from model.checkpoint import default_checkpoint, file_sha256, load_network, read_metadata, save_checkpoint
from model.composites import CHANCE, COMPOSITES, measure_composites
from model.config import METHODS, PRESETS, preset
from model.convert import convert
from model.corpus import Corpus, cache_folder, read_class_folders, read_protocol
from model.curve import draw_keep_rates, draw_precision_recall
from model.errors import ImageError, ModelError
from model.evaluation import Evaluation, counts, measure, score_matrices
from model.fetch import fetch, known_checkpoint, known_checkpoints
from model.instances import InstanceEvaluation, measure_instances
from model.intervals import RESAMPLED
from model.keep_rates import KeepRates, sweep
from model.matcher import Matcher, load
from model.metrics import recall_levels
from model.per_query import against, differences, read_csv, write_csv
from model.protocols import PROTOCOLS, Protocol, thinned
from model.recipe import read_recipe
from model.report import (
    Comparisons,
    category_json,
    category_table,
    comparison_json,
    comparison_table,
    instance_json,
    instance_table,
    keep_json,
    keep_table,
)
from model.tasks import LAYOUTS, SPLITS, read_task

RECIPES = Path(__file__).parent / "recipes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 2 with a sentence on standard error."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (ModelError, ImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; a training goes on from its last checkpoint when it is started again", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("convert", help="turn a released ZSE-SBIR .pth file into a checkpoint")
    command.add_argument("source", type=Path, metavar="RELEASED.pth")
    command.add_argument("target", type=Path, metavar="OUT.safetensors")
    command.set_defaults(run=run_convert)

    command = commands.add_parser("init", help="make a new network from a pretrained ViT")
    command.add_argument("preset", choices=sorted(PRESETS))
    command.add_argument("--backbone", required=True, metavar="FILE|TIMM-TAG", help="safetensors file or timm tag")
    command.add_argument("--seed", type=int, default=0, help="for the parts that start random (default: 0)")
    command.add_argument("target", type=Path, metavar="OUT.safetensors")
    command.set_defaults(run=run_init)

    command = commands.add_parser("info", help="say what a checkpoint is")
    command.add_argument("checkpoint", type=Path, nargs="?", help="default: the one that comes with the package")
    command.set_defaults(run=run_info)

    command = commands.add_parser("train", help="train a network, or go on with a training")
    command.add_argument("recipe", type=Path, help=f"a TOML file, as in {RECIPES.name}/ of this package")
    command.add_argument("--backbone", required=True, metavar="FILE|TIMM-TAG", help="weights to start from")
    command.add_argument(
        "--start", type=Path, metavar="FILE", help="a checkpoint to begin with; the backbone stays the teacher"
    )
    command.add_argument("--run", type=Path, dest="folder", metavar="DIR", help="default: runs/NAME-OF-RECIPE")
    command.add_argument("--until", type=int, metavar="STEP", help="stop after this step; the next call goes on")
    command.add_argument("--out", type=Path, metavar="OUT.safetensors", help="default: DIR/final.safetensors")
    _add_data(command)
    command.set_defaults(run=run_train)

    command = commands.add_parser("fetch", help="download a public checkpoint, or list those that are known")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", metavar="NAME", help="as --list prints it")
    which.add_argument("--list", action="store_true", help="print all that are known")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the Hugging Face cache, where the indexer and timm find it"
    )
    command.set_defaults(run=run_fetch)

    command = commands.add_parser("composites", help="measure whether matching patches point at the thing drawn")
    command.add_argument("--weights", type=Path, metavar="FILE", help="default: the one that comes with the package")
    command.add_argument("--split", choices=("val", "unseen", "train"), default="val", help="classes (default: val)")
    command.add_argument("--count", type=int, default=COMPOSITES, help=f"canvases (default: {COMPOSITES})")
    command.add_argument("--seed", type=int, default=0, help="of their choice (default: 0)")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    _add_data(command)
    command.set_defaults(run=run_composites)

    command = commands.add_parser("evaluate", help="measure how well a checkpoint retrieves")
    command.add_argument("--weights", type=Path, metavar="FILE", help="default: the one that comes with the package")
    command.add_argument(
        "--backbone", metavar="FILE|TIMM-TAG", help="measure an untrained ViT: alone, or beside the --weights named"
    )
    command.add_argument("--protocol", choices=PROTOCOLS, default="zero-shot", help="default: zero-shot")
    command.add_argument("--split", choices=SPLITS, help="classes (default: val, or all of --data)")
    command.add_argument(
        "--trained-on",
        metavar="NAME",
        help="cross-data-set: sketchy (default), tuberlin, quickdraw or, with --data, a split; generalised: train+val",
    )
    command.add_argument(
        "--layout", choices=LAYOUTS, default="folders", help="--data: class folders, public file lists, QMUL pairs"
    )
    command.add_argument("--every", type=_two_numbers, metavar="S,P", help="only every S-th sketch and P-th photo")
    command.add_argument("--method", action="append", choices=METHODS, help="default: all the checkpoint has")
    command.add_argument("--visual", action="store_true", help="also score by the mean visual token, as row vis")
    command.add_argument("--device", default="cpu")
    command.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--intervals", choices=RESAMPLED, help="print 95%% intervals, by resamples of these")
    command.add_argument("--csv", type=Path, metavar="FILE", help="write the figures of each query")
    command.add_argument("--against", type=Path, metavar="FILE.csv", help="compare with what --csv wrote elsewhere")
    command.add_argument(
        "--keep", metavar="R,R,...", help="sweep keep rates: r, r_S/r_I or r_S/r_I/r_CA, with their costs"
    )
    command.add_argument("--plot", type=Path, metavar="FILE", help="draw precision over recall, or the sweep")
    _add_data(command)
    command.set_defaults(run=run_evaluate)
    return top


def run_fetch(options: argparse.Namespace) -> None:
    """fetch NAME [--out DIR], fetch --list"""
    if options.list:
        for entry in known_checkpoints():
            origin = f"https://huggingface.co/{entry.repository}" if entry.repository else "by hand"
            print(f"{entry.name}\n  {entry.kind}, about {entry.megabytes} MB: {entry.purpose}")
            print(f"  licence: {entry.licence}\n  from: {entry.source}; {origin}\n  then: {entry.use}\n")
        return
    entry = known_checkpoint(options.name)
    fetched = fetch(entry, options.out)
    checks = {
        "registry": "as it should be",
        "record": "as when it was first fetched",
        "nothing": "not known before; written down, and compared from now on",
    }
    print(f"file:    {fetched.path}\nsha256:  {fetched.sha256}, {checks[fetched.checked]}\nlicence: {entry.licence}")
    print(f"then:    {entry.command(fetched.path, cached=options.out is None)}")


def run_composites(options: argparse.Namespace) -> None:
    """composites [--weights FILE] [--split NAME | --data DIR] [--count N] [--seed N] [--json]"""
    matcher = load(default_checkpoint(options.weights or os.environ.get("SBIR_WEIGHTS") or None), dtype=torch.float32)
    corpus = read_protocol(options.split) if options.data is None else read_class_folders(options.data)
    with tqdm(desc="explaining", unit="composite", total=options.count, disable=None) as bar:
        result = measure_composites(matcher, corpus, options.count, options.seed, lambda _: bar.update())
    if options.json:
        print(json.dumps(dataclasses.asdict(result)))
        return
    print(f"{result.composites} composites of {result.classes} classes; by chance {CHANCE:.3f}")
    for name, interval in (
        ("best matches in the right quarter", result.right),
        ("compared tokens in the right quarter", result.tokens),
        ("composites most matches of which are there", result.most),
    ):
        print(f"{name:<44}{interval.value:.3f}  (95%: {interval.low:.3f} to {interval.high:.3f})")


def run_convert(options: argparse.Namespace) -> None:
    """convert RELEASED.pth OUT.safetensors"""
    convert(options.source, options.target)
    print(f"wrote {options.target}")


def run_init(options: argparse.Namespace) -> None:
    """init PRESET --backbone FILE|TIMM-TAG OUT.safetensors"""
    network = from_backbone(preset(options.preset), read_backbone(options.backbone), options.seed)
    origin = f"encoder started from {Path(options.backbone).name}; relation network untrained"
    save_checkpoint(network, options.target, {"origin": origin})
    print(f"wrote {options.target}: {origin}, so it matches by [Ret] alone until trained")


def run_info(options: argparse.Namespace) -> None:
    """info [CHECKPOINT]"""
    path = default_checkpoint(options.checkpoint or os.environ.get("SBIR_WEIGHTS") or None)
    metadata = read_metadata(path)
    network = load_network(path)
    config = network.config
    parameters = sum(tensor.numel() for tensor in network.parameters())
    lines = {
        "file": str(path),
        "sha256": file_sha256(path),
        "network": f"{config.name}, {parameters / 1e6:.1f} M parameters",
        "methods": f"{', '.join(config.methods)} (best: {config.best_method})",
        "tokens": f"sketch {config.token_count('sketch')}, photo {config.token_count('photo')}, of {config.width} dims",
    }
    if "rn" not in config.methods:
        lines["relation network"] = "untrained, not offered"
    lines |= {name: metadata[name] for name in sorted(set(metadata) - {"format", "version", "config"})}
    released = [
        field.name.removeprefix("released_")
        for field in dataclasses.fields(config)
        if field.name.startswith("released_") and getattr(config, field.name)
    ]
    if released:
        lines["released quirks"] = ", ".join(released)
    for name, value in lines.items():
        print(f"{name + ':':<21}{value}")


def run_train(options: argparse.Namespace) -> None:
    """train RECIPE --backbone FILE|TIMM-TAG [--start FILE] [--run DIR] [--until STEP] [--out OUT.safetensors]"""
    from model.calibration import calibrated, glance, inheriting
    from model.training import Trainer
    from model.training_set import training_corpora, training_set

    recipe = read_recipe(options.recipe)
    training, validation = training_corpora(options.data, recipe.split)
    if validation is None and options.start is None:
        raise ModelError("a training that leaves no classes to choose on needs --start, whose choices it keeps")
    folder = options.folder or Path("runs") / options.recipe.stem
    chosen = f"choices are made on {counts(validation)}" if validation else f"choices are those of {options.start}"
    print(f"training on {counts(training)}; {chosen}")
    data, backbone = training_set(training, cache_folder() / "pixels"), read_backbone(options.backbone)
    start = load_network(options.start) if options.start else None
    trainer = Trainer(recipe, data, backbone, folder, start)
    trainer.run((lambda run: glance(run, validation)) if validation else None, until=options.until)
    if trainer.step < recipe.steps:
        print(f"stopped at step {trainer.step} of {recipe.steps}; the same command goes on from here")
        return
    target = options.out or folder / "final.safetensors"
    notes = {"origin": f"trained by recipe {options.recipe.name} from {(options.start or Path(options.backbone)).name}"}
    if validation:
        network, figures = calibrated(trainer.average, validation, torch.bfloat16 if recipe.bf16 else torch.float32)
        notes["validation mAP@all"] = json.dumps(figures)
        said = f"; mAP@all on validation classes: {figures}"
    else:
        assert start is not None
        network, said = inheriting(trainer.average, start.config), ""
    save_checkpoint(network.half(), target, notes)
    print(f"wrote {target}{said}")


def run_evaluate(options: argparse.Namespace) -> None:
    """evaluate [--weights FILE] [--backbone FILE] [--protocol NAME] [--split NAME | --data DIR] [--json] ..."""
    task = read_task(options.protocol, options.split, options.trained_on, options.data, options.layout)
    corpus = thinned(task.corpus, *options.every) if options.every else task.corpus
    if options.keep:
        _sweep(options, task.protocol, corpus)
        return
    if options.plot and task.protocol == "fine-grained":
        raise ModelError("precision over recall is drawn of the category protocols; leave out --plot")
    other = read_csv(options.against) if options.against else None
    matrices, measured = _scored(options, corpus)
    result: Evaluation | InstanceEvaluation
    if task.protocol == "fine-grained":
        result = measure_instances(corpus, matrices)
    else:
        result = measure(corpus, matrices, task.apart, curves=options.plot is not None)
    resampled = options.intervals or RESAMPLED[0]
    paired = against(result.each, other, resampled) if other else ()
    compared = Comparisons(resampled, differences(result.each, resampled), paired)
    if options.json:
        figures = category_json(result) if isinstance(result, Evaluation) else instance_json(result)
        about = {"protocol": task.protocol, "about": task.about}
        print(json.dumps(figures | measured | about | comparison_json(result.each, compared, task.apart)))
    else:
        print(category_table(result, task.apart) if isinstance(result, Evaluation) else instance_table(result))
        for sentence in task.about:
            print(f"\n{task.protocol}: {sentence}")
        if options.intervals or other:
            print("\n" + comparison_table(result.each, compared))
    if options.csv:
        write_csv(result.each, options.csv)
    if options.plot and isinstance(result, Evaluation):
        title = f"{measured['checkpoint']}, {task.protocol}"
        draw_precision_recall(recall_levels(), result.curves, title, options.plot)


def _sweep(options: argparse.Namespace, protocol: Protocol, corpus: Corpus) -> None:
    """evaluate --keep R,R,..."""
    others = ("csv", "against", "intervals", "backbone", "visual")
    if protocol == "fine-grained" or any(getattr(options, name) for name in others):
        raise ModelError(f"--keep is for category protocols and without {', '.join(f'--{name}' for name in others)}")
    path, matcher = _checkpoint(options)
    settings = [KeepRates.parse(text, matcher.config.keep_cross) for text in options.keep.split(",")]
    found = sweep(matcher, corpus, settings, options.method)
    print(json.dumps(keep_json(found) | _identity(path.name, matcher)) if options.json else keep_table(found))
    if options.plot:
        series = {m: [(row.costs.pair_macs / 1e6, row.methods[m].map_all) for row in found] for m in found[0].methods}
        draw_keep_rates(series, "million multiply-adds a pair", f"{path.name}, {protocol}", options.plot)


def _scored(options: argparse.Namespace, corpus: Corpus) -> tuple[dict[str, NDArray[np.floating]], dict[str, str]]:
    """Scores by method, and what scored them."""
    matrices: dict[str, NDArray[np.floating]] = {}
    measured = {}
    if options.weights or not options.backbone:
        path, matcher = _checkpoint(options)
        matrices |= score_matrices(matcher, corpus, options.method, visual=options.visual)
        measured = _identity(path.name, matcher)
    if options.backbone:
        weights = read_backbone(options.backbone)
        file = Path(options.backbone).expanduser()
        matcher = backbone_matcher(weights, file_sha256(file) if file.is_file() else "", options.device)
        matrices |= backbone_matrices(matcher, corpus)
        measured = measured or _identity(file.name, matcher)
    return matrices, measured


def _checkpoint(options: argparse.Namespace) -> tuple[Path, Matcher]:
    path = default_checkpoint(options.weights or os.environ.get("SBIR_WEIGHTS") or None)
    matcher = load(path, options.device, None if options.dtype == "auto" else getattr(torch, options.dtype))
    unknown = [method for method in options.method or () if method not in matcher.methods]
    if unknown:
        raise ModelError(f"{path} cannot score by {unknown[0]!r}, only by {', '.join(matcher.methods)}")
    return path, matcher


def _identity(name: str, matcher: Matcher) -> dict[str, str]:
    dtype = str(matcher.dtype).removeprefix("torch.")
    return {"checkpoint": name, "checkpoint_sha256": matcher.checkpoint_sha256, "dtype": dtype}


def _two_numbers(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    if not (first.isdecimal() and second.isdecimal() and int(first) and int(second)):
        raise argparse.ArgumentTypeError(f"two numbers from 1 on with a comma between, not {text!r}")
    return int(first), int(second)


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="sketch/<class>/* and photo/<class>/* (default: the folder SKETCH_SEARCH_DATA names)",
    )


if __name__ == "__main__":
    sys.exit(main())
