"""`python -m training`: the program of ``training.commands``."""

import sys

from sketch_search.training.commands import main

if __name__ == "__main__":
    sys.exit(main(prog=f"python -m {__package__}"))
