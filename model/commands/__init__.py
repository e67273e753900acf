"""The program `python -m model`: one module for each family of commands, which adds their options and runs them."""

from model.commands.command_line import main
