"""Sketch search for programs: photos by a drawing, by a word, by what they look like.

    from sketch_search import Gallery

    gallery = Gallery.open("~/Pictures")
    for photo in gallery.search("cat.png", k=5):
        print(photo.path, photo.score)

``Gallery`` searches in this process; ``Remote`` sends requests to a server and loads no network. Both return the same
answers. Refusals are a ``UserError``, whose message contains the remedy. The names below are imported on first use,
because NumPy and ONNX Runtime take time to load.
"""

import importlib
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sketch_search.answers import Explanation, Group, Photo, Results
    from sketch_search.gallery import Gallery, encode, rank
    from sketch_search.model.errors import UserError
    from sketch_search.remote import Remote

# NumPy reads it once, on import, so it is set before any module below imports NumPy. Otherwise NumPy's threads would
# spin for 25 ms after each product of matrices, and take the cores from ONNX Runtime's and from other processes.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

__all__ = ["Explanation", "Gallery", "Group", "Photo", "Remote", "Results", "UserError", "encode", "rank"]

_MODULES = {"Gallery": "gallery", "encode": "gallery", "rank": "gallery", "Remote": "remote"}


def __getattr__(name: str) -> Any:
    return import_late(__name__, name, [_MODULES.get(name, "answers")] if name in __all__ else [])


def import_late(package: str, name: str, modules: Iterable[str]) -> Any:
    """Imports a name from the first of these modules of a package that has it, and keeps it in the package."""
    for module_name in modules:
        module = importlib.import_module(f"{package}.{module_name}")
        if hasattr(module, name):
            value = vars(sys.modules[package])[name] = getattr(module, name)
            return value
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
