"""`python -m service`: the same program as `sketch-search`."""

import sys

from sketch_search.service.commands import main

if __name__ == "__main__":
    sys.exit(main())
