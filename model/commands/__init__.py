"""The program `python -m model`: ``command_line`` says what may be written, ``program`` what each command does."""

from model.commands.command_line import main
