"""Defines the typed errors of the service, and how HTTP answers each of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from indexer import BadInvocation, IndexRefused, PhotoUnavailable, UnknownPhoto
from model.errors import (
    BlankSketch,
    CostlyImage,
    DecodingUnavailable,
    ImageTooLarge,
    Refusal,
    UndecodableImage,
    UnsupportedImage,
)
from model.words import UnknownWord


class ServiceFault(Refusal):
    """Base of the errors of this package; the message is a sentence for whoever asked."""


class BadSearch(ServiceFault):
    """A search parameter is out of its range, or the checkpoint cannot do it."""


class BadUpload(ServiceFault):
    """A request body without the sketch in it."""


class BrokenUpload(ServiceFault):
    """A multipart body that does not parse."""


class UploadTooLarge(ServiceFault):
    """A request body with more bytes than the limit."""


class Unauthorized(ServiceFault):
    """The API key is missing or wrong."""


class Forbidden(ServiceFault):
    """This client may not do that."""


class BuildRefused(ServiceFault):
    """A build cannot be started over what is there."""


class NotFound(ServiceFault):
    """Nothing has that id."""


class NotReady(ServiceFault):
    """The checkpoint or the index could not be opened."""


class ShardsLost(NotReady):
    """Shards with these names did not answer a question."""

    def __init__(self, names: Sequence[str]) -> None:
        which = f"The shard {names[0]} does" if len(names) == 1 else f"The shards {', '.join(names)} do"
        super().__init__(f"{which} not answer now. Try again in a moment.")
        self.names = tuple(names)


class ClientGone(ServiceFault):
    """Whoever asked has hung up."""


class QueueFull(ServiceFault):
    """No further search may wait; whole seconds after which to retry."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The service is busy. Try again in {retry_after} s.")
        self.retry_after = retry_after


class BrokenOff(ServiceFault):
    """An answer that has begun cannot go on; the connection just ends."""


@dataclass(frozen=True)
class Verdict:
    """The HTTP answer to an error: its status, and the ``code`` that programs read."""

    status: int
    code: str


VERDICTS: dict[type[Exception], Verdict] = {
    UndecodableImage: Verdict(400, "undecodable_image"),
    BrokenUpload: Verdict(400, "undecodable_upload"),
    Unauthorized: Verdict(401, "unauthorized"),
    Forbidden: Verdict(403, "forbidden"),
    NotFound: Verdict(404, "not_found"),
    UnknownPhoto: Verdict(404, "not_found"),
    PhotoUnavailable: Verdict(404, "photo_unavailable"),
    BuildRefused: Verdict(409, "build_refused"),
    ImageTooLarge: Verdict(413, "too_many_pixels"),
    UploadTooLarge: Verdict(413, "too_many_bytes"),
    UnsupportedImage: Verdict(415, "unsupported_image"),
    BlankSketch: Verdict(422, "blank_sketch"),
    CostlyImage: Verdict(422, "costly_image"),
    BadInvocation: Verdict(422, "bad_parameter"),
    BadSearch: Verdict(422, "bad_parameter"),
    BadUpload: Verdict(422, "bad_parameter"),
    UnknownWord: Verdict(422, "unknown_word"),
    QueueFull: Verdict(429, "queue_full"),
    # Nobody reads this one; nginx's number for it keeps the log truthful.
    ClientGone: Verdict(499, "client_gone"),
    IndexRefused: Verdict(503, "not_ready"),
    NotReady: Verdict(503, "not_ready"),
    DecodingUnavailable: Verdict(503, "not_ready"),
}
