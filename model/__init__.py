"""The networks of sketch-to-photo search: sketch and photo in; tokens, scores and explanations out."""

from model.errors import ModelError
from model.explanation.pair import Explanation
from model.matcher import Matcher, load
from model.network.config import ModelConfig
from model.network.cross import Side
from model.network.tokens import Tokens

__all__ = ["Explanation", "Matcher", "ModelConfig", "ModelError", "Side", "Tokens", "load"]
