"""`python -m model`: the program of ``model.commands``."""

import sys

from sketch_search.model.commands import main

if __name__ == "__main__":
    sys.exit(main(prog=f"python -m {__package__}"))
