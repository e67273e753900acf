"""Lets ``indexer``, ``model`` and ``service`` be short names of the packages below ``sketch_search``.

Modules import each other below ``sketch_search`` only, so that a ``model.py`` of somebody else changes nothing here.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _ShortNames(MetaPathFinder, Loader):
    """Finds ``model.errors`` as ``sketch_search.model.errors``, so that no module, and no class, exists twice."""

    def __init__(self) -> None:
        self.packages = set[str]()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        # `python -m` needs the file of a __main__.
        return ModuleSpec(name, self) if package in self.packages and rest not in ("", "__main__") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"{__package__}.{spec.name}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just replaced the module's own spec.
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state


_FINDER = _ShortNames()


def share(name: str) -> None:
    """Makes the package ``name``, being imported, another name of the one below ``sketch_search``."""
    if "." in name:
        return
    sys.modules[name] = importlib.import_module(f"{__package__}.{name}")
    _FINDER.packages.add(name)
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
