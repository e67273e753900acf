"""What the three programs share at the terminal: command lines, names made harmless, errors as sentences.

It imports nothing but the standard library, because a program says its help before anything slow is loaded.
"""

from model.terminal.arguments import Parser, a_path
from model.terminal.paths import HomeUnknown, expanded
from model.terminal.program import BAD_INPUT, run_program
from model.terminal.refusal import Refusal
from model.terminal.text import printable

__all__ = ["BAD_INPUT", "HomeUnknown", "Parser", "Refusal", "a_path", "expanded", "printable", "run_program"]
