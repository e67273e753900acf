"""Defines the typed errors of the service, and how HTTP answers each of them."""

from collections.abc import Sequence

from sketch_search.indexer import BadInvocation, IndexRefused, PhotoUnavailable, UnknownPhoto
from sketch_search.model import errors
from sketch_search.model.words import UnknownWord


class ServiceError(errors.UserError):
    """Base of the errors of this package; the message is a sentence for the client."""


class BadSearch(ServiceError):
    """A parameter is out of range or unsupported by the checkpoint, or a form holds something other than the sketch."""


class BrokenUpload(ServiceError):
    """A multipart body that does not parse."""


class UploadTooLarge(ServiceError):
    """A request body with more bytes than the limit."""


class Unauthorized(ServiceError):
    """The API key is missing or wrong."""


class Forbidden(ServiceError):
    """Not permitted for this client."""


class BuildRefused(ServiceError):
    """A build cannot be started because of what is there."""


class NotFound(ServiceError):
    """Nothing has that id."""


class NotReady(ServiceError):
    """The checkpoint or the index could not be opened."""


class ShardsLost(NotReady):
    """Shards with these names did not answer a question."""

    def __init__(self, names: Sequence[str]) -> None:
        which = f"The shard {names[0]} does" if len(names) == 1 else f"The shards {', '.join(names)} do"
        super().__init__(f"{which} not answer. Try again in a moment.")
        self.names = tuple(names)


class ClientGone(ServiceError):
    """The client disconnected."""


class QueueFull(ServiceError):
    """The queue has no room for another search. Holds the whole seconds after which to retry."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The service is busy. Try again in {retry_after} s.")
        self.retry_after = retry_after


class BrokenOff(ServiceError):
    """An answer that has begun cannot be completed; the connection is closed."""


# The HTTP status of each error, and the ``code`` that programs read.
HTTP_ERRORS: dict[type[Exception], tuple[int, str]] = {
    errors.UndecodableImage: (400, "undecodable_image"),
    BrokenUpload: (400, "undecodable_upload"),
    Unauthorized: (401, "unauthorized"),
    Forbidden: (403, "forbidden"),
    NotFound: (404, "not_found"),
    UnknownPhoto: (404, "not_found"),
    PhotoUnavailable: (404, "photo_unavailable"),
    BuildRefused: (409, "build_refused"),
    errors.ImageTooLarge: (413, "too_many_pixels"),
    UploadTooLarge: (413, "too_many_bytes"),
    errors.UnsupportedImage: (415, "unsupported_image"),
    errors.BlankSketch: (422, "blank_sketch"),
    errors.MalformedSketch: (422, "bad_parameter"),
    errors.CostlyImage: (422, "costly_image"),
    BadInvocation: (422, "bad_parameter"),
    BadSearch: (422, "bad_parameter"),
    UnknownWord: (422, "unknown_word"),
    QueueFull: (429, "queue_full"),
    # No client receives this one; it keeps the log truthful, with nginx's number for it.
    ClientGone: (499, "client_gone"),
    IndexRefused: (503, "not_ready"),
    NotReady: (503, "not_ready"),
    errors.GalleryUnusable: (503, "not_ready"),
    errors.DecodingUnavailable: (503, "not_ready"),
}
