"""`python -m sketch_search`: the program `sketch-search`."""

import sys

from sketch_search.service.commands import main

if __name__ == "__main__":
    sys.exit(main())
