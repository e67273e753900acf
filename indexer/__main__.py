"""`python -m indexer`: the program of ``indexer.commands``."""

import sys

from sketch_search.indexer.commands import main

if __name__ == "__main__":
    sys.exit(main(prog=f"python -m {__package__}"))
