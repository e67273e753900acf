"""The rows of the comparison, and the recipe that each is trained by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import ModelError


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
