"""Sketch and photo in; tokens, scores and explanations out. ``load`` returns a ``Matcher``. Imports are late."""

from typing import TYPE_CHECKING, Any

from sketch_search import import_late

if TYPE_CHECKING:
    from sketch_search.model.engine import ModelConfig, Tokens
    from sketch_search.model.errors import ModelError
    from sketch_search.model.explanation import PairExplanation
    from sketch_search.model.loading import load, where_it_computes
    from sketch_search.model.matcher import Matcher

__all__ = ["Matcher", "ModelConfig", "ModelError", "PairExplanation", "Tokens", "load", "where_it_computes"]

# From the lowest to the highest, so that a name from a low module loads no higher one.
_HOMES = ("errors", "engine", "explanation", "matcher", "loading")


def __getattr__(name: str) -> Any:
    return import_late(__name__, name, _HOMES if name in __all__ else ())
