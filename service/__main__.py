"""`python -m service`: the same program as `sketch-search`."""

from sketch_search.service.commands import program

if __name__ == "__main__":
    program()
