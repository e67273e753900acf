"""The command line `sketch-search`, which `python -m service` is, too: one module a command, or a family of them.

`command_line` says what may be written, `dispatch` calls the command that was named.
"""

from service.commands.command_line import main
