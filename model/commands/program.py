"""Runs the commands: ``run_COMMAND`` takes the options that ``command_line`` has parsed."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from model.checkpoint import (
    average_checkpoints,
    convert,
    fetch,
    known_checkpoint,
    known_checkpoints,
    load_network,
    save_checkpoint,
)
from model.datasets import (
    LARGE_PROTOCOLS,
    Corpus,
    read_class_folders,
    read_protocol,
    read_task,
    subsampled,
    write_folders,
)
from model.engine import DESCRIPTION, default_checkpoint, file_sha256, preset, read_metadata
from model.errors import ModelError
from model.evaluation import (
    CHANCE,
    RESAMPLED,
    Evaluation,
    calibrated,
    guess_table,
    measure,
    measure_composites,
    measure_guesses,
    task_matrices,
)
from model.matcher import Matcher, load
from model.network import (
    ClipAtConfig,
    ClipAtNetwork,
    Network,
    TorchEngine,
    clip_at_network_from,
    find_device,
    from_backbone,
    read_backbone,
    read_clip,
)
from model.terminal import printable


def run_info(options: argparse.Namespace) -> None:
    """info [CHECKPOINT]"""
    path = default_checkpoint(options.checkpoint)
    metadata = read_metadata(path)
    network = load_network(path)
    config, calibration = network.config, network.calibration
    parameters = sum(tensor.numel() for tensor in network.parameters())
    lines = {
        "file": str(path),
        "sha256": file_sha256(path),
        "network": f"{config.name}, {parameters / 1e6:.1f} M parameters",
        "methods": f"{', '.join(calibration.methods)} (best: {calibration.best_method})",
        "tokens": f"sketch {config.token_count('sketch')}, photo {config.token_count('photo')}, of {config.width} dims",
    }
    if isinstance(network, ClipAtNetwork):
        shared = network.config.shared_norms
        whose = "that sketches and photos share" if shared else "of their own for sketches and photos"
        lines["clip-at"] = f"{network.config.prompts} prompts and LayerNorms {whose}; the encoder is frozen"
    if calibration.fusion is not None:
        lines["fusion weight"] = f"{calibration.fusion:g}"
    if calibration.diffusion is not None:
        lines["diffusion threshold"] = f"cosine {calibration.diffusion:g}"
    if config.words:
        lines["vocabulary"] = f"{len(config.words):,} words"
    if isinstance(network, Network) and not calibration.relation_trained:
        lines["relation network"] = "untrained, not offered"
    lines |= {name: metadata[name] for name in sorted(metadata.keys() - DESCRIPTION)}
    released = [
        field.name.removeprefix("released_")
        for field in dataclasses.fields(config)
        if field.name.startswith("released_") and getattr(config, field.name)
    ]
    if released:
        lines["released quirks"] = ", ".join(released)
    for name, value in lines.items():
        print(printable(f"{name + ':':<21}{value}"))


def run_fetch(options: argparse.Namespace) -> None:
    """fetch NAME [--out DIR], fetch --list"""
    if options.list:
        for entry in known_checkpoints():
            origin = f"https://huggingface.co/{entry.repository}" if entry.repository else "by hand"
            print(f"{entry.name}\n  {entry.kind}, about {entry.megabytes} MB: {entry.purpose}")
            print(f"  licence: {entry.licence}\n  from: {entry.source}; {origin}\n  then: {entry.use}\n")
        return
    entry = known_checkpoint(options.name)
    path, digest = fetch(entry, options.out)
    print(printable(f"file:    {path}"))
    print(f"sha256:  {digest}{', as it should be' if entry.sha256 else ''}\nlicence: {entry.licence}")
    print(printable(f"then:    {entry.command(path, cached=options.out is None)}"))


def run_convert(options: argparse.Namespace) -> None:
    """convert RELEASED.pth OUT.safetensors"""
    convert(options.source, options.target)
    print(printable(f"wrote {options.target}"))


def run_init(options: argparse.Namespace) -> None:
    """init PRESET --backbone FILE|TIMM-TAG OUT.safetensors"""
    network = from_backbone(preset(options.preset), read_backbone(options.backbone), options.seed)
    origin = f"encoder started from {Path(options.backbone).name}; relation network untrained"
    save_checkpoint(network, options.target, {"origin": origin})
    print(printable(f"wrote {options.target}: {origin}, so it matches by [Ret] alone until trained"))


def run_train(options: argparse.Namespace) -> None:
    """train RECIPE --backbone FILE|TIMM-TAG [--start FILE] [--run DIR] [--until STEP] [--out FILE] [--words FILE]"""
    # These are imported here, as below, because the modules that train take seconds to load.
    from model.papers import TRAININGS, Run, check_target, read_recipe

    folder = options.folder or Path("runs") / options.recipe.stem
    target = options.out or folder / "final.safetensors"
    # The quick checks come first: preparing many pictures takes minutes, and a training takes hours.
    recipe = read_recipe(options.recipe)
    check_target(target, folder)
    device = find_device(options.device)
    start = options.data, options.start, options.until, options.words
    run = Run(options.recipe, options.backbone, folder, target, *start, device)
    TRAININGS[type(recipe)](recipe, run)


def run_photo_side(options: argparse.Namespace) -> None:
    """photo-side ENCODER SECOND OUT.safetensors"""
    from model.papers import make_photo_side

    make_photo_side(options.encoder, options.second, options.target)


def run_average(options: argparse.Namespace) -> None:
    """average IN.safetensors ... OUT.safetensors"""
    average_checkpoints(options.sources, options.target)
    print(printable(f"wrote {options.target}; its words are made by sketch-search model words"))


def run_export(options: argparse.Namespace) -> None:
    """export IN.safetensors DIR"""
    from model.engine import read_two_sided
    from model.engine.graphs import write_graphs

    folder = write_graphs(read_two_sided(options.source).config, options.target)
    print(printable(f"wrote {folder}"))


def run_words(options: argparse.Namespace) -> None:
    """words IN.safetensors --backbone FILE|TIMM-TAG [--recipe RECIPE] OUT.safetensors"""
    from model.papers import give_words

    give_words(options.source, options.backbone, options.target, recipe=options.recipe, data=options.data)


def run_table(options: argparse.Namespace) -> None:
    """table NAME [--data DIR] [--budget N] [--row NAME] [--resume] [--plot FILE] [--page PAGE] [--json]"""
    from model.papers import TableRun, write_block

    rows = tuple(options.rows or ())
    run = TableRun(
        options.data, options.words, options.backbone, options.budget, rows, Path(options.runs), options.resume
    )
    budget = f" --budget {options.budget}" if options.budget else ""
    shown = run.run(options.name, f"python -m model table {options.name}{budget}")
    print(shown.json() if options.json else shown.markdown())
    if options.page:
        write_block(options.page, options.name, shown.markdown())
    if options.plot:
        shown.plot(options.plot)


def run_evaluate(options: argparse.Namespace) -> None:
    """evaluate [--weights FILE | --network clip:MODEL]... [--protocol NAME] [--split NAME | --data DIR] [--json] ..."""
    large = options.protocol in LARGE_PROTOCOLS
    if options.words and not large:
        raise ModelError(f"--words is for --protocol {', '.join(LARGE_PROTOCOLS)}")
    if options.by_class and (large or options.protocol == "fine-grained"):
        raise ModelError("--by-class is for category protocols")
    task = read_task(options.protocol, options.split, options.trained_on, options.data)
    task = task.subsampled(*options.every) if options.every else task
    task = task.by_class() if options.by_class else task
    found: dict[str, Evaluation] = {}
    identities: list[dict[str, object]] = []
    base = ""
    for name, matcher in _measured(options):
        matrices = task_matrices(matcher, task, options.methods, words=options.words)
        found[name] = measure(task, matrices)
        # The others are compared with the best method of the first.
        best = matcher.best_method if matcher.best_method in matrices else next(iter(matrices))
        base = base or f"{name}: {best}"
        identities.append(
            {
                "checkpoint": name,
                "checkpoint_sha256": matcher.checkpoint_sha256,
                "dtype": matcher.dtype,
                "variants": matcher.variants,
            }
        )
    one = Evaluation.side_by_side(found) if len(found) > 1 else next(iter(found.values()))
    resampled = options.intervals or RESAMPLED[0]
    if options.json:
        result = one.json(resampled) | {"protocol": task.protocol, "about": task.about}
        if len(found) > 1:
            less = one.differences(base).json(resampled)["intervals"]
            result |= {"checkpoints": identities, "compared_with": base, "differences": less}
        print(json.dumps(result | identities[0] if len(found) == 1 else result))
        return
    print(one.table())
    for sentence in task.about:
        print(f"\n{task.protocol}: {sentence}")
    if options.intervals:
        print("\n" + one.interval_table(options.intervals))
    if len(found) > 1:
        print("\n" + one.difference_table(base, resampled))


def _measured(options: argparse.Namespace) -> Iterator[tuple[str, Matcher]]:
    """Loads, one after the other, the networks that ``evaluate`` is to measure, each with a name of its own."""
    default = os.environ.get("SBIR_WEIGHTS")
    files = options.weights or ([] if options.network else [Path(default) if default else None])
    paths = [default_checkpoint(file) for file in files]
    dtype = None if options.dtype == "auto" else options.dtype
    names = [path.name for path in paths]
    for path in paths:
        name = path.name if names.count(path.name) == 1 else str(path)
        yield name, load(path, options.device, dtype, variants=options.variants)
    for name in options.network or ():
        # The threshold of diffusion is chosen on the validation classes, if they are there, as for networks that are
        # trained here.
        validation = None if options.data else subsampled(read_protocol("val"), 2, 2)
        yield name, clip_matcher(name, validation, options.device, options.variants or 1)


def clip_matcher(network: str, validation: Corpus | None, device: str = "cpu", variants: int = 1) -> Matcher:
    """Makes a matcher that compares CLIP's own image vectors of sketches and photos, with nothing learned.

    Args:
        network: "clip:" and a CLIP, as for ``read_clip``.
        validation: the pictures on which the threshold of diffusion is chosen; None for no diffusion.
        variants: how often a sketch is encoded.

    Raises ModelError for any other name, and for a CLIP that cannot be had.
    """
    kind, _, source = network.partition(":")
    if kind != "clip" or not source:
        raise ModelError(f"--network {network} is unknown; name clip:MODEL, such as clip:ViT-B-32/laion2b_s34b_b79k")
    encoder = read_clip(source).encoder
    config = ClipAtConfig(
        name=network,
        vit=encoder.layout,
        image_size=encoder.image_size,
        prompts=0,
        mean=encoder.mean,
        std=encoder.std,
    )
    plain = clip_at_network_from(config, encoder.weights).requires_grad_(False).to(device).eval()
    if validation is not None:
        plain, _ = calibrated(plain, validation, methods=("ret",))
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in encoder.weights.values())).hexdigest()
    return Matcher(TorchEngine(plain.to(device)), digest, variants=variants)


def run_composites(options: argparse.Namespace) -> None:
    """composites [--weights FILE] [--split NAME | --data DIR] [--count N] [--seed N] [--json]"""
    matcher = load(default_checkpoint(options.weights))
    corpus = read_protocol(options.split) if options.data is None else read_class_folders(options.data)
    result = measure_composites(matcher, corpus, options.count, options.seed)
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


def run_guesses(options: argparse.Namespace) -> None:
    """guesses [--weights FILE] [--protocol NAME] [--split NAME] [--trained-on PARTS] [--variants N] [--json]"""
    matcher = load(default_checkpoint(options.weights), variants=options.variants)
    found = measure_guesses(matcher, read_task(options.protocol, options.split, options.trained_on))
    if options.json:
        print(json.dumps({name: dataclasses.asdict(row) for name, row in found.items()}))
    else:
        print(guess_table(found))


def run_folders(options: argparse.Namespace) -> None:
    """folders OUT [--split NAME] [--trained-on PARTS]"""
    task = read_task("everything", options.split, options.trained_on)
    write_folders(task, options.out)
    print(f"{len(task.corpus.photos):,} photos and {len(task.corpus.sketches):,} sketches are in {options.out}")
