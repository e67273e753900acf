"""The command line `sketch-search`: one module a command, or a small family of them; `main` starts them."""

from service.commands.program import main

__all__ = ["main"]
