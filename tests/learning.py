"""Generated pictures and a small random ViT, for tests that train."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import timm
import torch

from sketch_search.model.training.corpus import Corpus, read_class_folders
from sketch_search.model.training.papers.zse import Samples, ZseOptimiser, ZseRecipe
from tests.pictures import SHAPES, drawing, photo

NETWORK = {
    "width": 32,
    "depth": 4,
    "heads": 2,
    "mlp_ratio": 2.0,
    "tokenizer_widths": [4, 8, 16],
    "select_after": [1, 2],
    "cross_heads": 2,
    "cross_ffn": 32,
    "dropout": 0.0,
}


def toml(values: Mapping[str, object]) -> str:
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())


def write_class_folders(folder: Path, *, seeds: range, shapes: Sequence[str] = SHAPES, drawn: int = 0) -> Corpus:
    """Write ``folder``/sketch/<shape>/* and ``folder``/photo/<shape>/*, one picture of each for every seed.

    drawn: that many sketches of each photo instead, which are named after it.
    """
    for shape in shapes:
        for half in ("sketch", "photo"):
            (folder / half / shape).mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            photo(shape, 96, seed).save(folder / "photo" / shape / f"{seed:03}.png")
            names = {f"{seed:03}-{n}": 10 * seed + n for n in range(1, 1 + drawn)} or {f"{seed:03}": seed}
            for name, number in names.items():
                drawing(shape, 96, number).save(folder / "sketch" / shape / f"{name}.png")
    return read_class_folders(folder)


def small_vit() -> timm.models.VisionTransformer:
    """A ViT of timm as large as NETWORK says, with random weights and a classifier of ten classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = timm.models.VisionTransformer(
            img_size=64, patch_size=16, embed_dim=32, depth=4, num_heads=2, mlp_ratio=2.0, num_classes=10
        )
        vit.load_state_dict({name: value + 0.05 * torch.randn_like(value) for name, value in vit.state_dict().items()})
    return vit.eval()


def small_backbone() -> dict[str, torch.Tensor]:
    """The weights of ``small_vit``."""
    return small_vit().state_dict()


def small_recipe(steps: int, **network: object) -> ZseRecipe:
    """A recipe for pictures of 64 pixels. Its state is saved at the end, and where a run stops."""
    return ZseRecipe(
        preset="zse-ti16",
        steps=steps,
        network={**NETWORK, "image_size": 64, **network},
        samples=Samples(count=4),
        optimiser=ZseOptimiser(encoder_rate=1e-3, head_rate=2e-3, warmup=5, average=0.9),
        save_every=1000,
        bf16=False,
    )
