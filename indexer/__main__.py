"""`python -m indexer`: the program of ``indexer.commands``."""

import sys

try:
    from indexer.commands import main
except KeyboardInterrupt:
    # Ctrl-C was pressed before the program had begun.
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main(prog=f"python -m {__package__}"))
