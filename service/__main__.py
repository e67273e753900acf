"""`python -m service`: the same program as `sketch-search`."""

from __future__ import annotations

import sys

from service.commands import main

if __name__ == "__main__":
    sys.exit(main())
