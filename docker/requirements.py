"""Print what the pyproject.toml here asks for: dependencies and the named extras; with --only, the extras alone."""

import argparse
import tomllib
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("extras", nargs="*")
parser.add_argument("--only", action="store_true")
asked = parser.parse_args()
project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
needed = [] if asked.only else list(project["dependencies"])
for extra in asked.extras:
    needed += project["optional-dependencies"][extra]
print("\n".join(needed))
