"""Puts every package of the wheel below ``sketch_search``: beside other packages ``model`` could be anybody's.

In a checkout, and so in an editable install, the packages stay side by side and import each other by their short names.
"""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HOME = "sketch_search"
MOVED = frozenset({"indexer", "model", "service", "weights"})


class BuildBelowHome(build_py):
    """The build of a wheel's modules."""

    def run(self) -> None:
        """Copies the packages as they are, moves them, and rewrites their imports."""
        super().run()
        if self.editable_mode:
            return
        built = Path(self.build_lib)
        for name in sorted(MOVED):
            target = built / HOME / name
            if target.exists():  # of an earlier build
                shutil.rmtree(target)
            shutil.move(built / name, target)
        for module in (built / HOME).rglob("*.py"):
            module.write_bytes(rewritten(module.read_bytes(), module))


def rewritten(source: bytes, file: Path) -> bytes:
    """Returns a module whose imports of moved packages name their new place; all else stays byte by byte.

    Raises SystemExit for an import that would bind another name at the new place.
    """
    lines = source.splitlines(keepends=True)
    changes: list[tuple[int, int, bytes, bytes]] = []
    for node in ast.walk(ast.parse(source, file)):
        if isinstance(node, ast.ImportFrom) and not node.level and _moved(node.module or ""):
            changes.append((node.lineno, node.col_offset, b"from ", b"from " + HOME.encode() + b"."))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if not _moved(alias.name):
                    continue
                if alias.asname:
                    changes.append((alias.lineno, alias.col_offset, b"", HOME.encode() + b"."))
                elif "." in alias.name or len(node.names) > 1:
                    raise SystemExit(f"{file}:{node.lineno}: write `from {alias.name} import ...` instead")
                else:
                    changes.append((node.lineno, node.col_offset, b"import ", b"from " + HOME.encode() + b" import "))
    # From the last to the first, since a change moves what stands behind it in its line.
    for number, column, old, new in sorted(changes, reverse=True):
        line = lines[number - 1]
        if not line.startswith(old, column):
            raise SystemExit(f"{file}:{number}: write this import with single spaces")
        lines[number - 1] = line[:column] + new + line[column + len(old) :]
    return b"".join(lines)


def _moved(module: str) -> bool:
    return module.partition(".")[0] in MOVED


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildBelowHome})
