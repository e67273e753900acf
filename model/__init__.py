"""The networks of sketch-to-photo search: sketch and photo in; tokens, scores and explanations out."""

from model.errors import ModelError
from model.explanation import Explanation
from model.matcher import Matcher, load
from model.network import ModelConfig, Side, Tokens

__all__ = ["Explanation", "Matcher", "ModelConfig", "ModelError", "Side", "Tokens", "load"]
