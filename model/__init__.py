"""The networks of sketch-to-photo search: sketch and photo in; tokens, scores and explanations out.

``model.load`` gives a ``Matcher``, which is all that indexing and searching need.
"""

from model.errors import ModelError
from model.explanation import Explanation
from model.matcher import Matcher, load
from model.network import ModelConfig, Side, Tokens

__all__ = ["Explanation", "Matcher", "ModelConfig", "ModelError", "Side", "Tokens", "load"]
