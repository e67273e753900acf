"""`python -m model`: the program of ``model.commands``."""

from __future__ import annotations

import sys

from model.commands import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
