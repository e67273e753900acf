"""`python -m model`: the program of ``model.commands``."""

import sys

try:
    from model.commands import main
except KeyboardInterrupt:
    # Ctrl-C was pressed before the program had begun.
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main(prog=f"python -m {__package__}"))
