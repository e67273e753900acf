"""Print what the pyproject.toml here asks for: dependencies and the named extras; with --only, the extras alone."""

import argparse
import tomllib
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("extras", nargs="*")
parser.add_argument("--only", action="store_true")
arguments = parser.parse_args()
project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
needed = [] if arguments.only else list(project["dependencies"])
for extra in arguments.extras:
    needed += project["optional-dependencies"][extra]
print("\n".join(needed))
