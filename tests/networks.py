"""Small networks with random weights, and what they are trained on, for tests only."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from sketch_search.model.engine import Calibration, Parting, Vocabulary, ZseConfig
from sketch_search.model.engine.parting import HEADS, count_features
from sketch_search.model.matcher import Matcher
from sketch_search.model.torch import Network, RetNetwork, TorchEngine
from sketch_search.model.torch.checkpoint import save_checkpoint
from sketch_search.training.corpus import Corpus, read_class_folders
from sketch_search.training.papers.zse import Samples, ZseOptimiser, ZseRecipe
from tests.pictures import SHAPES, drawing, photo

_TINY: dict[str, Any] = {"image_size": 64, "width": 32, "depth": 4, "heads": 2, "mlp_ratio": 2.0, "kernel_width": 16}
_TINY |= {"tokenizer_widths": (4, 8, 16), "select_after": (1, 2), "keep_sketch": 0.7, "keep_photo": 0.7}
_TINY |= {"cross_heads": 2, "cross_ffn": 32, "relation": "best-match", "relation_ret": True, "relation_hidden": (8, 4)}
TINY = ZseConfig(name="tiny-random", **_TINY)
TINY_CALIBRATION = Calibration(methods=("rn", "ret"), best_method="rn")
CALIBRATED = {field.name for field in dataclasses.fields(Calibration)}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tiny_config(**overrides: Any) -> ZseConfig:
    """The configuration of a network with a 4x4 grid and 32 dimensions; ``overrides`` are fields of ZseConfig."""
    return dataclasses.replace(TINY, **overrides)


def tiny_network(seed: int = 0, **overrides: Any) -> Network:
    """Random weights, larger than a real start's, so that images differ clearly in their tokens."""
    calibration = {name: value for name, value in overrides.items() if name in CALIBRATED}
    config = {name: value for name, value in overrides.items() if name not in CALIBRATED}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(tiny_config(**config), dataclasses.replace(TINY_CALIBRATION, **calibration))
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.5 if name.endswith(("ret", "position")) else 0.25)
    return network.requires_grad_(False).eval()


def matcher_of(network: RetNetwork, variants: int | None = None) -> Matcher:
    return Matcher(TorchEngine(network), "0" * 64, variants=variants)


def with_words(network: Network, words: tuple[tuple[str, ...], ...]) -> Network:
    """Copies a network with a vocabulary in random directions, so that it can guess; the last word fits nothing."""
    directions, biases = 4 * randn(len(words), network.config.width, seed=7), torch.zeros(len(words))
    biases[-1] = -6
    return network.vocabulary_replaced(vocabulary(directions=directions, biases=biases), words)


def vocabulary(drawn: Sequence[int] = (), placed: int = 0, **arrays: Any) -> Vocabulary:
    """A vocabulary with zeros for all that is left out; guesses have a scale of 1."""
    (words, width), things = arrays["directions"].shape, len(drawn)
    nothing: dict[str, Any] = {"biases": np.zeros(words), "guess_scale": 1.0}
    if drawn:
        nothing |= {"sketch_biases": np.zeros(things), "places": np.zeros((things, width))}
    return Vocabulary.of(nothing | arrays, drawn, placed)


def tiny_checkpoint(path: Path, *, seed: int = 0, words: tuple[tuple[str, ...], ...] = (), **overrides: Any) -> Path:
    """Write such a network to ``path``, with a vocabulary of these words if there are any; returns ``path``."""
    network = tiny_network(seed, **overrides)
    save_checkpoint(with_words(network, words) if words else network, path)
    return path


def parting_by_distance(encoder_width: int) -> Parting:
    """A parting for which ink belongs together if it is nearer than 0.64 of the square's side, on average."""
    zeros: dict[str, Any] = {"first.weight": (HEADS, count_features(encoder_width)), "direction.weight": (2, HEADS)}
    zeros |= dict.fromkeys(("first.bias", "last.weight", "last.bias"), HEADS)
    arrays = {name: np.zeros(shape) for name, shape in zeros.items()}
    return Parting.of(arrays | {"direction.bias": np.array([1, 0]), "pairs": np.array([0, 15.36, 24, 0, 0])})


SMALL: Mapping[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 64, "heads": 1, "layers": 1},
}


# The tokens of open_clip's own tokenizer, so that the model can read text.
READING: Mapping[str, Any] = {
    **SMALL,
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


def saved_clip(folder: Path, config: Mapping[str, Any] = SMALL, seed: int = 0) -> Path:
    """A small random model in ``folder``, saved as open_clip saves. With READING as ``config`` it can read text."""
    # Imported late, as it takes seconds.
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = open_clip.CLIP(**config)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return folder


NETWORK = {"width": 32, "depth": 4, "heads": 2, "mlp_ratio": 2.0, "tokenizer_widths": [4, 8, 16]}
NETWORK |= {"select_after": [1, 2], "cross_heads": 2, "cross_ffn": 32, "dropout": 0.0}


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
