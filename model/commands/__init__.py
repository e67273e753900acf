"""The program `python -m model`: one module for each family of commands, which adds their options and runs them."""

from model.commands.program import main

__all__ = ["main"]
