"""The program `python -m indexer`: its command line, and one module for each family of commands."""

from indexer.commands.command_line import main, parser
