"""Parts that the three programs share at the terminal: command lines, names made harmless, errors as sentences.

It imports nothing but the standard library, because a program says its help before anything slow is loaded.
"""

from model.terminal.arguments import Parser, Subparsers, a_path, program_parser
from model.terminal.interrupts import importing
from model.terminal.paths import HomeUnknown, expanded, resolved
from model.terminal.program import BAD_INPUT, as_called, run_program
from model.terminal.refusal import Refusal
from model.terminal.text import printable
from model.terminal.version import VersionAction, installed_version

__all__ = [
    "BAD_INPUT",
    "HomeUnknown",
    "Parser",
    "Refusal",
    "Subparsers",
    "VersionAction",
    "a_path",
    "as_called",
    "expanded",
    "importing",
    "installed_version",
    "printable",
    "program_parser",
    "resolved",
    "run_program",
]
