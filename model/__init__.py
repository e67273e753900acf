"""The networks of sketch-to-photo search: sketch and photo in; tokens, scores and explanations out.

``model.load`` gives a ``Matcher``, which is all that indexing and searching need. The names below are imported when
they are first used, because a command line that only shows its help imports this package, too, and should not wait for
PyTorch.
"""

from __future__ import annotations

import importlib

# Stands for `typing.TYPE_CHECKING`: importing typing would take longer than the rest of this module, and Ctrl-C pressed
# meanwhile would end in a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from model.engine import ModelConfig, Tokens
    from model.errors import ModelError
    from model.explanation import Explanation
    from model.matcher import Matcher, load

__all__ = ["Explanation", "Matcher", "ModelConfig", "ModelError", "Tokens", "load"]

# The rooms from the lowest to the highest, so that a name from a low room loads no higher room.
_ROOMS = ("errors", "engine", "explanation", "matcher")
# Modules that are reached as attributes: model.images.open_image, model.metrics.category_metrics.
_MODULES = ("images", "metrics")


def __getattr__(name: str) -> Any:
    """Imports an exported name from the first room that has it, or one of the modules above."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    for room in _ROOMS if name in __all__ else ():
        module = importlib.import_module(f"{__name__}.{room}")
        if hasattr(module, name):
            value = globals()[name] = getattr(module, name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
