"""`python -m sketch_search`: the program `sketch-search`."""

from sketch_search.service.commands import program

if __name__ == "__main__":
    program()
