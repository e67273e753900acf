"""The patterns by which a user excludes files and folders from a gallery, written as in .gitignore."""

import re
import unicodedata
from collections.abc import Sequence

from pathspec import GitIgnoreSpec

from sketch_search.indexer.errors import BadInvocation
from sketch_search.indexer.store.files import is_unicode
from sketch_search.indexer.store.roots import with_folders

MAX_PATTERNS, MAX_LENGTH = 100, 200
# Pathspec makes regular expressions of patterns, whose time grows by the power of their wildcards. The name "aaa...",
# 255 letters long, is compared with *a*a*a*b for a second, and with *a*a*b for a fortieth of it.
MAX_WILDCARDS, MAX_WILDCARDS_IN_ALL = 3, 4


class Exclusions:
    """Patterns to leave out, of which the last match decides; '!' takes back, but not from a folder left out.

    Accents are equal composed or not. Raises BadInvocation for an invalid or slow pattern, and for too many.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        if len(patterns) > MAX_PATTERNS:
            raise BadInvocation(f"{len(patterns)} patterns are too many; use at most {MAX_PATTERNS}.")
        for pattern in patterns:
            _check(pattern)
        self.patterns = tuple(patterns)
        self._spec = GitIgnoreSpec.from_lines(map(_compose, patterns), backend="simple")

    def matches(self, path: str, *, is_folder: bool = False) -> bool:
        """Returns True if a file or folder of a root is left out, provided that the folder it is in is not."""
        return bool(self.patterns) and self._spec.match_file(_compose(path) + "/" * is_folder)

    def hides(self, path: str) -> bool:
        """Returns True if a file of a root, or a folder that it is in, is left out."""
        folders = with_folders(path)[1:-1]
        return any(self.matches(folder, is_folder=True) for folder in folders) or self.matches(path)


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _check(pattern: str) -> None:
    shown = f"the pattern {pattern[:MAX_LENGTH]!r}"
    if len(pattern) > MAX_LENGTH:
        raise BadInvocation(f"{shown}... is too long; a pattern has at most {MAX_LENGTH} characters.")
    if not is_unicode(pattern):
        raise BadInvocation(f"{shown} is not valid UTF-8; write ? for a character that cannot be typed.")
    wildcards = [1 if part == "**" else part.count("*") for part in pattern.split("/")]
    if max(wildcards) > MAX_WILDCARDS or sum(wildcards) > MAX_WILDCARDS_IN_ALL:
        raise BadInvocation(
            f"{shown} has too many wildcards: at most {MAX_WILDCARDS} * may stand between two slashes, and "
            f"{MAX_WILDCARDS_IN_ALL} in all."
        )
    try:
        compiled = GitIgnoreSpec.from_lines([pattern], backend="simple").patterns
    except (ValueError, re.error) as error:
        raise BadInvocation(f"{shown} cannot be read ({error}); write it as in .gitignore.") from error
    if all(one.include is None for one in compiled):
        raise BadInvocation(f"{shown} matches no file; write it as in .gitignore, such as '*.png' or '/2019/raw/'.")
