"""Defines the errors that this package raises. Each message is a sentence with the remedy."""

from pathlib import Path

from sketch_search.model.errors import UserError

# The end of a sentence about a damaged index.
REPAIR = "build this index again (`sketch-search index build`) to rebuild the damaged parts"


class IndexerError(UserError):
    """An error that stops a build, a reader or a check."""


class BadInvocation(IndexerError):
    """The request is impossible: a missing folder, no usable photo, more clusters than photos."""


class EmbedderUnavailable(BadInvocation):
    """The embedder is unknown, or its weights are not on this disk and could not be downloaded."""


class IndexUnwritable(BadInvocation):
    """The index folder cannot be written, or its disk is full. The current generation stays current."""


class IndexBusy(IndexerError):
    """Another build is writing this index."""


class IndexRefused(IndexerError):
    """The index cannot be read: it does not exist, has another format or checkpoint, or a file is missing or short."""


class IndexDamaged(IndexRefused):
    """A file of the index is missing, too short, or has changed since it was written. A build repairs it."""


class UnknownPhoto(IndexerError, LookupError):
    """No shown photo has this id."""


class PhotoUnavailable(IndexerError):
    """The photo is in the index, but none of its files can be read any longer."""


def unreadable(path: Path, error: OSError, advice: str = REPAIR) -> IndexRefused:
    """Makes the error for a file of an index that cannot be read. Only a missing file counts as damage."""
    if isinstance(error, FileNotFoundError):
        return IndexDamaged(f"{path} is missing; {advice}.")
    return IndexRefused(f"{path} cannot be read: {error.strerror or error}; check its permissions and its disk.")
