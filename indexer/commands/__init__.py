"""Holds the program `python -m indexer`: its command line, and the work of each command."""

from indexer.commands.command_line import main, parser
