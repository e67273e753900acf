"""Holds the program `python -m model`: ``command_line`` parses the commands, and ``program`` runs them."""

from model.commands.command_line import main
