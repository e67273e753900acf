"""`python -m model`: the program of ``model.training.commands``."""

import sys

from sketch_search.model.training.commands import main

if __name__ == "__main__":
    sys.exit(main(prog=f"python -m {__package__}"))
