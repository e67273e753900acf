"""What a training of CLIP-AT starts from: a pretrained ViT, and a text vector for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from model.errors import ModelError
from model.network import PretrainedVit, build_vit, layout_of, read_backbone, read_clip
from model.papers.clip_at.recipe import CLIP, ClipAtRecipe
from model.papers.word_vectors import class_rows, class_vectors, read_word_vectors

# The paper's sentence for a class.
SENTENCE = "a photo of a {}"
# What ViTs of timm are mostly trained with; a recipe's [network] may set others.
_MEAN = _STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Start:
    """What has been read.

    Attributes:
        vit: the ViT.
        texts: the names of classes -> (c, d) float32, L2-normalised. Raises ModelError for a class without a vector.
        texts_from: where text vectors come from, for messages and notes.
    """

    vit: PretrainedVit
    texts: Callable[[Sequence[str]], torch.Tensor]
    texts_from: str


def read_start(recipe: ClipAtRecipe, backbone: str, words: Path | None) -> Start:
    """Reads a CLIP, or a ViT of timm with a file of word vectors.

    Args:
        backbone: of a CLIP, as ``read_clip`` takes it; else a file or a timm tag.
        words: as for ``read_word_vectors``; a CLIP has its own.

    Raises:
        ModelError: they cannot be read, or do not fit the recipe.
    """
    if recipe.backbone == CLIP:
        if words is not None:
            raise ModelError("CLIP reads the names of classes itself: leave --words out")
        clip = read_clip(backbone)
        return Start(
            clip.encoder,
            lambda labels: clip.text([SENTENCE.format(label.replace("_", " ")) for label in labels]),
            f"CLIP's text encoder, {SENTENCE.format('[CLASS]')!r}",
        )
    weights = read_backbone(backbone)
    size = int(recipe.network.get("image_size", 224))
    with torch.device("meta"):
        layout = layout_of(build_vit(recipe.backbone, size, recipe.sizes))
    vectors = read_word_vectors(words)

    def texts(labels: Sequence[str]) -> torch.Tensor:
        return F.normalize(class_vectors(vectors, class_rows(vectors, labels, recipe.names)), dim=1)

    return Start(PretrainedVit(layout, size, weights, _MEAN, _STD), texts, vectors.name)
