"""Puts every package of the wheel below ``sketch_search``: beside other packages ``model`` could be anybody's.

In a checkout, and so in an editable install, the packages stay side by side and import each other by their short names.
An import hook could not do this: it sees the name that is imported, and not by whom.
"""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HOME = "sketch_search"
MOVED = ("indexer", "model", "service", "weights")
_NAME = rf"(?=(?:{'|'.join(MOVED)})\b)".encode()
# At the beginning of a line only: `from model.x import y`, and `import model`.
_FROM = re.compile(rb"^( *from )" + _NAME, re.MULTILINE)
_IMPORT = re.compile(rb"^( *)import " + _NAME, re.MULTILINE)


class BuildBelowHome(build_py):
    """The build of a wheel's modules."""

    def run(self) -> None:
        """Copies the packages as they are, moves them, and rewrites their imports."""
        super().run()
        if self.editable_mode:
            return
        built = Path(self.build_lib)
        for name in MOVED:
            shutil.rmtree(built / HOME / name, ignore_errors=True)  # of an earlier build
            shutil.move(built / name, built / HOME / name)
        for module in (built / HOME).rglob("*.py"):
            source = _FROM.sub(rb"\1" + HOME.encode() + b".", module.read_bytes())
            module.write_bytes(_IMPORT.sub(rb"\1from " + HOME.encode() + b" import ", source))


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildBelowHome})
