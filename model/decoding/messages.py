"""The messages of a program and its decoding processes: one request through a pipe, one reply, and so on."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import date
from typing import BinaryIO

from PIL import Image

from model.decoding.job import Job
from model.decoding.limits import Limits
from model.errors import BlankSketch, CostlyImage, ImageError, ImageTooLarge, UndecodableImage, UnsupportedImage
from model.images import OpenedImage

# CPU seconds, seconds on the clock, bytes of memory, bytes of the job, bytes of the file.
_REQUEST = struct.Struct("<IdQIQ")
# Number of the error or 0, width, height, day taken or 0, counted from 1, the first one of the year 1; then the pixels.
# Width is the length of the error's text, where there is one.
_REPLY = struct.Struct("<BIII")
#: What a process says first, once it can be asked.
READY = b"ready"
_ERRORS: tuple[type[Exception], ...] = (
    UndecodableImage,
    UnsupportedImage,
    ImageTooLarge,
    CostlyImage,
    BlankSketch,
    MemoryError,
    # Of the list's last one, for all others: an error of this program.
    RuntimeError,
)


class BrokenReply(Exception):
    """The other process has ended, or says what nobody understands."""


@dataclass(frozen=True)
class Request:
    """A picture file, what is to be made of it, and what that may cost."""

    job: Job
    limits: Limits
    data: bytes


def send_request(stream: BinaryIO, request: Request) -> None:
    """Raises OSError where nobody reads."""
    job, limits = request.job.to_json(), request.limits
    sizes = limits.cpu_seconds, limits.clock_seconds, limits.memory, len(job), len(request.data)
    stream.write(_REQUEST.pack(*sizes) + job)
    stream.write(request.data)
    stream.flush()


def receive_request(stream: BinaryIO) -> Request | None:
    """None: the other process is gone."""
    head = stream.read(_REQUEST.size)
    if len(head) < _REQUEST.size:
        return None
    cpu_seconds, clock_seconds, memory, job_size, size = _REQUEST.unpack(head)
    job = stream.read(job_size)
    data = stream.read(size)
    if len(data) < size:
        return None
    return Request(Job.from_json(job), Limits(cpu_seconds, clock_seconds, memory), data)


def send_picture(stream: BinaryIO, opened: OpenedImage) -> None:
    """Raises OSError where nobody reads."""
    image, day = opened.image, 0 if opened.taken is None else opened.taken.toordinal()
    stream.write(_REPLY.pack(0, image.width, image.height, day))
    stream.write(image.tobytes())
    stream.flush()


def send_error(stream: BinaryIO, error: Exception) -> None:
    """Raises OSError where nobody reads."""
    number = next((n for n, kind in enumerate(_ERRORS) if isinstance(error, kind)), len(_ERRORS) - 1)
    text = (str(error) if isinstance(error, ImageError) else repr(error)).encode()
    stream.write(_REPLY.pack(number + 1, len(text), 0, 0) + text)
    stream.flush()


def receive_picture(stream: BinaryIO, most_pixels: int) -> OpenedImage:
    """The picture of the reply, or the error that it tells of, raised.

    Raises BrokenReply, too: the reply is cut short, or is no reply, or has more pixels than ``most_pixels``.
    """
    head = stream.read(_REPLY.size)
    if len(head) < _REPLY.size:
        raise BrokenReply
    number, width, height, day = _REPLY.unpack(head)
    if number:
        text = stream.read(min(width, 1 << 16)).decode(errors="replace")
        raise _ERRORS[min(number, len(_ERRORS)) - 1](text)
    if not 0 < width * height <= most_pixels or day > date.max.toordinal():
        raise BrokenReply
    pixels = stream.read(3 * width * height)
    if len(pixels) < 3 * width * height:
        raise BrokenReply
    image = Image.frombytes("RGB", (width, height), pixels)
    return OpenedImage(image, date.fromordinal(day) if day else None)
