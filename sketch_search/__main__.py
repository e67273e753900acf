"""`python -m sketch_search`: the program `sketch-search`."""

import sys

try:
    from service.commands import main
except KeyboardInterrupt:
    # Pressed before the program has begun.
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
