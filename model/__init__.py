"""The networks of sketch-to-photo search: sketch and photo in; tokens, scores and explanations out."""

from model.config import ModelConfig
from model.cross import Side
from model.errors import ModelError
from model.explanation import Explanation
from model.matcher import Matcher, load
from model.tokens import Tokens

__all__ = ["Explanation", "Matcher", "ModelConfig", "ModelError", "Side", "Tokens", "load"]
