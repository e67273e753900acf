"""The errors that this package raises; each message is a sentence that says what to do."""

from __future__ import annotations

# What helps against damage, to end a sentence with.
REPAIR = "run `python -m indexer verify --repair`, or delete the index folder and build again"


class IndexerError(Exception):
    """Something that stops a build, a reader or a check."""


class BadInvocation(IndexerError):
    """What was asked for cannot be done: a missing folder, no usable photo, more clusters than photos."""


class EmbedderUnavailable(BadInvocation):
    """The embedder asked for is unknown, or its weights are not here and could not be fetched."""


class IndexUnwritable(BadInvocation):
    """The index folder cannot be written, or its disk is full; what was live stays live."""


class IndexBusy(IndexerError):
    """Another build is writing this index."""


class IndexRefused(IndexerError):
    """The index cannot be read here: none yet, a newer format, another checkpoint, a missing or short file."""


class IndexTooNew(IndexRefused):
    """The index was written by a later version of this program; nothing here may touch it."""


class UnknownPhoto(IndexerError, LookupError):
    """No photo that is shown has this id."""


class PhotoUnavailable(IndexerError):
    """The photo is in the index, but its file can no longer be read."""
