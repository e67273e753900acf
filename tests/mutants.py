"""Alters one operator at a time in the modules that score photos, and says how often tests notice: `make mutants`."""

import argparse
import ast
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
MODULES = ("ranking.py", "things.py", "search/terms.py", "search/stages.py", "search/candidates.py")
# The nearest tests first; the others run only if these notice nothing.
NEAREST = ["tests/model/test_terms.py", "tests/model/test_ranking.py", "tests/model/test_things.py"]
TESTS = (NEAREST, ["tests/service/search"])
_PAIRS = "Add Sub,Mult Div,Lt GtE,Gt LtE,Eq NotEq,And Or"
OTHERS = {one: other for pair in _PAIRS.split(",") for one, other in (pair.split(), pair.split()[::-1])}


def mutants(source: str) -> Iterator[tuple[int, str]]:
    """Yields each altered source, with the line of its altered operator."""
    count = sum(isinstance(node, ast.operator | ast.cmpop | ast.boolop) for node in ast.walk(ast.parse(source)))
    for number in range(count):
        tree = ast.parse(source)
        line, seen = 0, -1
        for node in ast.walk(tree):
            for name, value in ast.iter_fields(node):
                for place, operator in enumerate(value if isinstance(value, list) else [value]):
                    if not isinstance(operator, ast.operator | ast.cmpop | ast.boolop):
                        continue
                    seen += 1
                    if seen == number and (other := OTHERS.get(type(operator).__name__)):
                        line, altered = getattr(node, "lineno", 0), getattr(ast, other)()
                        setattr(
                            node,
                            name,
                            [*value[:place], altered, *value[place + 1 :]] if isinstance(value, list) else altered,
                        )
        if line:
            yield line, ast.unparse(tree)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="operators to alter (20)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sites = [(name, *site) for name in MODULES for site in mutants((ROOT / "model" / name).read_text(encoding="utf-8"))]
    chosen = np.random.default_rng(options.seed).permutation(len(sites))[: options.count].tolist()
    noticed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".venv", ".git", "*.pyc"))
        for number in chosen:
            name, line, source = sites[number]
            (copy / "model" / name).write_text(source, encoding="utf-8")
            command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
            failed = any(
                subprocess.run([*command, *tests], cwd=copy, capture_output=True).returncode for tests in TESTS
            )
            noticed += failed
            print(f"{'noticed' if failed else 'SURVIVED'}: model/{name}:{line}", flush=True)
            shutil.copy(ROOT / "model" / name, copy / "model" / name)
    print(f"{noticed} of {len(chosen)} alterations noticed, of {len(sites)}")


if __name__ == "__main__":
    main()
