"""Decodes pictures in separate processes with limits, which can neither block nor end the program itself.

``python -m`` of this module is the program of these processes: it decodes pictures from standard input until that ends.
"""

import io
import json
import math
import os
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias, cast

import numpy as np
from PIL import Image

from sketch_search.model import errors, images
from sketch_search.model.errors import DecodingUnavailable, EndedDecoding, SlowImage, UndecodableImage
from sketch_search.model.images import LargeFile, OpenedImage, Pixels, Preprocessing, read_image_file
from sketch_search.model.limits import MAX_PIXELS
from sketch_search.model.terminal import start_child

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True)
class Job:
    """Describes how to open one picture and how to process it, all in the same process.

    max_pixels, least_side, sketch: as for ``model.images.open_image``. longest_side: in pixels, to which the
    picture is reduced. preprocessing: prepares it by ``Preprocessing.pixels``, or with ``drawing`` by
    ``Preprocessing.drawing``, with its ink and strokes. None leaves it as it is. whole: the longer side, in pixels,
    of the whole photo that ``fit_photo`` makes of the same decoding; None for none. parts: whether all this is made
    of its parts, too. sent: whether the picture was sent, perhaps in JSON. strokes: how many bytes behind the
    picture are its strokes as JSON. everything: whether writing and marks beside the drawing count; they do if its
    strokes are known. page: that of a file of several, from 1; 0 for the one with most ink that is no writing. turn: by
    so many degrees clockwise, a multiple of 90.
    """

    max_pixels: int = MAX_PIXELS
    least_side: int | None = None
    sketch: bool = False
    longest_side: int | None = None
    preprocessing: Preprocessing | None = None
    drawing: bool = False
    whole: int | None = None
    parts: bool = False
    sent: bool = False
    strokes: int = 0
    everything: bool = False
    page: int = 0
    turn: int = 0

    @classmethod
    def preparing(
        cls, preprocessing: Preprocessing, modality: str, max_pixels: int = MAX_PIXELS, **options: Any
    ) -> "Job":
        """Makes the job that prepares a picture for the network: (H, W, 3)."""
        least_side, sketch = preprocessing.least_side(modality), modality == "sketch"
        return cls(max_pixels, least_side, sketch, preprocessing=preprocessing, **options)

    def run(self, file: bytes | LargeFile, declare: Callable[[int], None] = lambda pixels: None) -> OpenedImage:
        """Makes the 8-bit RGB picture. declare: as for ``open_dated``. Raises ImageError."""
        strokes: tuple[images.Stroke, ...] = ()
        if isinstance(file, bytes):
            data, lines = (file[: -self.strokes], file[-self.strokes :]) if self.strokes else (file, b"")
            file = images.read_image_file(images.picture_of_body(data) if self.sent else data)
            strokes = (
                ()
                if not self.drawing or self.turn
                else images.read_strokes(lines)
                if lines
                else images.saved_strokes(file)
            )
        opened = images.open_dated(
            file,
            max_pixels=self.max_pixels,
            least_side=self.least_side,
            sketch=self.sketch,
            declare=declare,
            page=self.page,
        )
        image = opened.image.rotate(-self.turn, expand=True) if self.turn else opened.image
        if self.longest_side is not None:
            image.thumbnail((self.longest_side, self.longest_side), Image.Resampling.LANCZOS)
        if self.preprocessing is not None and self.drawing:
            drawing = self.preprocessing.drawing(image, everything=self.everything or bool(strokes))
            drawing = replace(drawing, strokes=strokes, page=opened.page)
            return replace(opened, image=Image.fromarray(drawing.whole), drawing=drawing)
        pictures = [image, *(images.cut(image, frame) for frame in (images.find_parts(image) if self.parts else ()))]
        wholes = () if self.whole is None else tuple(images.fit_photo(picture, self.whole) for picture in pictures)
        if self.preprocessing is not None:
            modality = "sketch" if self.sketch else "photo"
            pictures = [Image.fromarray(self.preprocessing.pixels(picture, modality)) for picture in pictures]
        return replace(opened, image=pictures[0], wholes=wholes, parts=tuple(pictures[1:]))

    @property
    def most_pixels(self) -> int:
        """The most pixels of its result."""
        if self.preprocessing is not None:
            # A drawing has its square as picture, as a whole, and as a thing.
            squares, ink = (3, images.MOST_INK) if self.drawing else (1, 0)
            most = squares * self.preprocessing.image_size**2 + ink + (self.whole or 0) ** 2
            return most * (1 + images.MAX_PARTS * self.parts)
        # Parts together have at most twice the pixels of their photo.
        most = self.max_pixels if self.longest_side is None else min(self.max_pixels, self.longest_side**2)
        return most * (1 + 2 * self.parts)


# Measured for 36 megapixels: 18 bytes a pixel of a lossless WebP with its file, 2.5 s for a PNG with 16 bits.
_BYTES_A_PIXEL = 20
_OWN_BYTES = 256 << 20
# This allows for machines that are several times slower than the one of the measurement.
PIXELS_A_SECOND = 8_000_000
_OWN_SECONDS = 4
# A large file may have to be read whole.
_BYTES_A_SECOND = 64 << 20
# Enough seconds for 8 megapixels.
_QUICK_SECONDS = 1
# While other programs use the CPU, a second of CPU time takes longer on the clock.
CLOCK_PER_CPU = 5


@dataclass(frozen=True)
class ProcessLimits:
    """The limits of decoding one picture: seconds of CPU and of the clock, and bytes of memory of the process.

    a_pixel: the CPU seconds and bytes that are added for each pixel that its file declares.
    """

    cpu_seconds: float
    clock_seconds: float
    memory: int
    a_pixel: tuple[float, int] = (0.0, 0)

    @classmethod
    def of(cls, size: int, most_pixels: int) -> "ProcessLimits":
        """Makes limits for a file's size and at most so many pixels: several times the needs of ordinary pictures."""
        seconds = _OWN_SECONDS + size // _BYTES_A_SECOND
        clock = CLOCK_PER_CPU * (seconds + most_pixels / PIXELS_A_SECOND)
        return cls(seconds, clock, _OWN_BYTES + 2 * size, (1 / PIXELS_A_SECOND, _BYTES_A_PIXEL))

    def quick(self) -> "ProcessLimits":
        """Returns limits with the same memory, and the time of ordinary pictures."""
        clock, a_pixel = CLOCK_PER_CPU * _QUICK_SECONDS, (0.0, self.a_pixel[1])
        return replace(self, cpu_seconds=_QUICK_SECONDS, clock_seconds=clock, a_pixel=a_pixel)

    @contextmanager
    def applied(self) -> Iterator[Callable[[int], None]]:
        """Applies the limits to this process while the block runs, if the system can. Its parent limits the time.

        Yields what raises them by the pixels that a file declares. Beyond the CPU time the system ends the process
        (SIGPROF); beyond the memory, allocating raises CostlyImage. Linux has both limits, macOS that of CPU time,
        Windows neither.
        """
        declared, memory = 0, self.memory

        def declare(pixels: int) -> None:
            nonlocal declared, memory
            if pixels > declared:
                memory = self.memory + pixels * self.a_pixel[1]
                _limit((pixels - declared) * self.a_pixel[0], memory)
                declared = pixels

        _limit(self.cpu_seconds, memory)
        try:
            yield declare
        except MemoryError as error:
            limit = f"{memory >> 20:,} MiB of memory"
            raise errors.CostlyImage(f"decoding it takes more than {limit}; make it smaller") from error
        finally:
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_PROF, 0)


def _limit(more_seconds: float, memory: int) -> None:
    if hasattr(signal, "setitimer"):
        # RLIMIT_CPU would count whole seconds, and from the start of the process.
        signal.setitimer(signal.ITIMER_PROF, signal.getitimer(signal.ITIMER_PROF)[0] + more_seconds)
    if sys.platform == "linux":
        # The address space is not limited: loaded libraries and merely reserved memory would count.
        _lower_limit("RLIMIT_DATA", memory)


def _lower_limit(name: str, soft: int) -> None:
    """Lowers a limit of this process, such as RLIMIT_CORE, if the system has limits."""
    try:
        import resource
    except ImportError:  # Windows
        return
    kind = getattr(resource, name)
    # The hard limit is unchanged, so that the soft one can be set repeatedly.
    hard = resource.getrlimit(kind)[1]
    with suppress(OSError, ValueError):
        resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


# The most bytes of a reply's JSON, which describes the picture or an error, and of a drawing's, which has its strokes.
_MAX_REPLY, _MAX_STROKES = 1 << 16, 1 << 24
#: A process writes this first, as soon as it can receive requests.
READY = b"ready"
_ERRORS: tuple[type[Exception], ...] = (
    errors.UndecodableImage,
    errors.UnsupportedImage,
    errors.ImageTooLarge,
    errors.CostlyImage,
    errors.BlankSketch,
    errors.MalformedSketch,
    # The last type represents all other errors, which are bugs of this program.
    RuntimeError,
)


# Bytes of a file that are sent at a time, and the largest that a decoder takes whole without having to.
_PART, _WHOLE = 1 << 20, 32 << 20


@dataclass(frozen=True)
class FileInParts:
    """A file of ``size`` bytes, of which ``read`` returns those from a start on, at most a count, and raises OSError.

    waits: whether reading may take long, as from a server, and so does not count as time of decoding.
    """

    size: int
    read: Callable[[int, int], bytes]
    waits: bool = False

    @classmethod
    def of(cls, data: bytes) -> "FileInParts":
        return cls(len(data), lambda start, count: data[start : start + count])

    def whole(self) -> bytes:
        return b"".join(self.read(start, _PART) for start in range(0, self.size, _PART))


#: The file of a picture.
File: TypeAlias = bytes | FileInParts
#: A picture to decode: how, within which limits, and its file.
Request: TypeAlias = tuple[Job, ProcessLimits, FileInParts]


class _Asked(io.RawIOBase):
    """The file of a request, in the process that decodes it: it asks for each part but the first."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO, size: int, first: bytes) -> None:
        self._requests, self._replies, self._size = requests, replies, size
        self._at, self._first = 0, first

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), _PART, max(0, self._size - self._at))
        part = self._first[self._at : self._at + count]
        if count and not part:
            _send(self._replies, f"[{self._at}, {count}]")
            _, part = _receive(self._requests)
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def _send(stream: BinaryIO, said: str, data: bytes = b"") -> None:
    """Sends a message: the number of bytes of its data and JSON on one line, and the data."""
    stream.write(f"{len(data)} {said}\n".encode())
    stream.write(data)
    stream.flush()


def _receive(stream: BinaryIO, most: tuple[int, int] = (sys.maxsize, sys.maxsize)) -> tuple[str, bytes]:
    """Returns the JSON and the data of a message. Raises EOFError for none, or one of more bytes than ``most``."""
    size, _, said = stream.readline(most[0]).partition(b" ")
    if not said.endswith(b"\n") or not size.isdigit() or (count := int(size[:20])) > most[1]:
        raise EOFError
    if len(data := stream.read(count)) != count:
        raise EOFError
    return said.decode(), data


def _send_picture(stream: BinaryIO, opened: OpenedImage) -> None:
    pixels = list[Pixels]()

    def described(value: Any) -> Any:
        if not isinstance(value, np.ndarray | Image.Image):
            return vars(value)
        pixels.append(np.asarray(value))
        return {"shape": pixels[-1].shape}

    said = json.dumps(opened, default=described)
    _send(stream, said, b"".join(array.tobytes() for array in pixels))


def _send_error(stream: BinaryIO, error: Exception) -> None:
    # The first that fits, so the order of the types matters.
    number = next((n for n, kind in enumerate(_ERRORS) if isinstance(error, kind)), len(_ERRORS) - 1)
    text = str(error) if isinstance(error, errors.ImageError) else repr(error)
    _send(stream, json.dumps({"error": number, "text": text[: _MAX_REPLY // 8]}))


def _asked(text: str) -> tuple[int, int]:
    """Returns which part of its file a process asks for: from where, and how many bytes. Raises EOFError."""
    try:
        start, count = json.loads(text)
        if start >= 0 and 0 < count <= _PART:
            return start, count
    except (ValueError, TypeError) as error:
        raise EOFError from error
    raise EOFError


def _read_picture(text: str, data: bytes) -> OpenedImage:
    """Returns the picture of a reply, or raises its error; EOFError if it is neither."""
    at = 0

    def take(values: dict[str, Any]) -> Any:
        """Puts the next pixels in the place of their shape."""
        nonlocal at
        if values.keys() != {"shape"}:
            return values
        begin, at = at, at + math.prod(values["shape"])
        return np.frombuffer(data[begin:at], np.uint8).reshape(values["shape"])

    try:
        said = json.loads(text, object_hook=take)
        if "error" in said:
            raise _ERRORS[said["error"]](said["text"])
        image, *parts = map(Image.fromarray, (said["image"], *said["parts"]))
        (opened,) = _opened().validate_python([said | {"image": image, "parts": parts}])
    except (ValueError, TypeError, LookupError) as error:
        raise EOFError from error
    return opened


@cache
def _opened() -> "TypeAdapter[tuple[OpenedImage]]":
    # Imported late: the program of a decoding process sends pictures, and receives none.
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(tuple[OpenedImage], config=ConfigDict(arbitrary_types_allowed=True))


_PROGRAM = f"{__package__}.decoding"
# The most bytes of a file that are looked at outside of such a process.
_SMALL = 1024
# Seconds to wait for a process to start. Even a busy machine starts one in a tenth of this.
_START_SECONDS = 60
_TUNING = {
    # One thread per process is enough.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # glibc keeps this memory for the next picture. Allocating it for each picture costs a fifth more time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


class DecoderCrashed(UndecodableImage):
    """The process ended while decoding, but not by a limit."""


class DecodingProcess:
    """A process that decodes one picture at a time, for one thread. It ends with this program, however that ends."""

    def __init__(self) -> None:
        """Starts it. Raises DecodingUnavailable."""
        try:
            self._process = start_child("-m", _PROGRAM, **_TUNING)
        except OSError as error:
            raise _unavailable(error.strerror or str(error)) from error
        self._requests, self._replies = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        with self._killed_after(_START_SECONDS):
            ready = self._replies.read(len(READY))
        if ready != READY:
            self.close()
            raise _unavailable("it ended before it could start")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, request: Request, *, quick: bool = False) -> OpenedImage:
        """Runs a job. Errors but its own end the process: CostlyImage, SlowImage, EndedDecoding, DecoderCrashed.

        Those of reading the file do, too.
        """
        (job, limits, file), computed = request, _cpu_seconds(self.pid)
        said, asked = json.dumps({"job": asdict(job), "limits": asdict(limits), "size": file.size}), (0, _PART)
        most = _MAX_STROKES if job.drawing else _MAX_REPLY, 3 * job.most_pixels
        until = time.monotonic() + limits.clock_seconds
        while True:
            begun = time.monotonic()
            try:
                part = file.read(*asked)
            except BaseException:
                self.close()
                raise
            until += (time.monotonic() - begun) * file.waits
            try:
                with self._killed_after(max(0.0, until - time.monotonic())):
                    _send(self._requests, said, part)
                    text, data = _receive(self._replies, most)
                if not text.startswith("["):
                    return _read_picture(text, data)
                said, asked = "", _asked(text)
            except (EOFError, OSError) as error:
                late, computed = time.monotonic() >= until, _cpu_seconds(self.pid) - computed
                self.close()
                raise self._end(limits, computed, late=late, quick=quick) from error

    def _end(self, limits: ProcessLimits, computed: float, *, late: bool, quick: bool) -> errors.ImageError:
        """Returns why the process ended, which computed for so many seconds."""
        code = self._process.returncode
        if late and not quick and computed < limits.clock_seconds / CLOCK_PER_CPU:
            # What it did not compute is no fault of the picture.
            still = f"{limits.clock_seconds:g} seconds, twice"
            return EndedDecoding(f"the decoder stood still for {still}; free memory, and try again")
        if late or -code == getattr(signal, "SIGPROF", None):
            spent = f"{limits.clock_seconds:g}" if late else f"{limits.cpu_seconds:g} CPU"
            beside = f", and one for each {PIXELS_A_SECOND / 1e6:g} million pixels" if limits.a_pixel[0] else ""
            limit = f"{spent} seconds{beside}"
            return SlowImage(f"decoding it takes more than {limit}; save it again, or smaller")
        if -code == getattr(signal, "SIGKILL", None):
            return EndedDecoding("the system killed the decoder twice, probably out of memory; make it smaller")
        return DecoderCrashed("the file is damaged: it crashes its decoder")

    @contextmanager
    def _killed_after(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self._process.kill)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError as error:
            self.close()
            raise _unavailable(str(error)) from error
        try:
            yield
        finally:
            timer.cancel()

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self.kill()
        for stream in (self._requests, self._replies):
            with suppress(OSError):  # unread data is no longer needed
                stream.close()
        self._process.wait()


def _cpu_seconds(pid: int) -> float:
    """Returns the CPU time that a process has used; without bound where the system does not say it by /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return math.inf
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _unavailable(reason: str) -> DecodingUnavailable:
    return DecodingUnavailable(
        f"no process can be started to decode pictures ({reason}); free memory, or allow more open files and "
        "processes, and try again"
    )


class RunJob(Protocol):
    """Does a job with a file. Several threads may call it."""

    def __call__(self, file: File, job: Job, *, quick: bool = False) -> OpenedImage:
        """Makes an 8-bit RGB picture. Raises ImageError; with ``quick``, SlowImage after a second or so."""


def decode_inline(file: File, job: Job, *, quick: bool = False) -> OpenedImage:
    """Does a job in this process and without limits: for a person's own files, one by one."""
    return job.run(file if isinstance(file, bytes) else file.whole())


class Decoders:
    """Decodes in processes, started on demand and again when ended, all of which end with this context manager."""

    def __init__(self, most: int, limits: ProcessLimits | None = None) -> None:
        """most: how many processes there may be. limits: of each picture; None for limits that suit its size."""
        self._limits = limits
        self._room = threading.Semaphore(most)
        # A decoder may need all of a large file.
        self._room_for_large = threading.Lock()
        self._lock = threading.Lock()
        self._idle: list[DecodingProcess] = []
        self._busy = set[DecodingProcess]()
        self._closed = False

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def idle(self) -> tuple[int, ...]:
        with self._lock:
            return tuple(process.pid for process in self._idle)

    def start(self) -> None:
        """Starts a process, so that the first picture need not wait for it."""
        with self._room, self._process():
            _opened()

    def run(self, file: File, job: Job, *, quick: bool = False) -> OpenedImage:
        """Does a job with a file; with ``quick``, only if it takes no longer than ordinary pictures.

        Large files are decoded one at a time. Raises what reading the file does; ImageError as the job does,
        CostlyImage or SlowImage beyond a limit, UndecodableImage if the process crashes, EndedDecoding if the system
        ends it; DecodingUnavailable if none can be started.
        """
        file = FileInParts.of(file) if isinstance(file, bytes) else file
        if not file.size or (file.size <= _SMALL and not job.sent):
            # A small file that is empty or not a picture needs no process; of others nothing is decoded here.
            read_image_file(file.read(0, _SMALL))
        limits = self._limits or ProcessLimits.of(file.size, job.max_pixels)
        request = job, limits.quick() if quick else limits, file
        with self._room_for_large if file.size > _WHOLE else nullcontext(), self._room:
            # Only a system that is short of memory kills the process twice in a row, and not for another reason.
            with suppress(DecoderCrashed, EndedDecoding), self._process() as process:
                return process.run(request, quick=quick)
            with self._process() as process:
                return process.run(request, quick=quick)

    def close(self) -> None:
        """Ends all processes, also those that decode: nobody waits for their pictures any more."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for process in self._busy:
                process.kill()
        for process in idle:
            process.close()

    @contextmanager
    def _process(self) -> Iterator[DecodingProcess]:
        with self._lock:
            while self._idle and not self._idle[-1].alive:
                self._idle.pop().close()
            waiting = self._idle.pop() if self._idle else None
        process = waiting or DecodingProcess()
        try:
            with self._lock:
                if self._closed:
                    raise _unavailable("this program ends")
                self._busy.add(process)
            yield process
        finally:
            with self._lock:
                self._busy.discard(process)
                keep = not self._closed and process.alive
                if keep:
                    self._idle.append(process)
            if not keep:
                process.close()


def main() -> None:
    """Answers requests until the requesting program has ended."""
    # Signals that end this process must not write its memory to a file.
    _lower_limit("RLIMIT_CORE", 0)
    # Nobody would read Pillow's warnings about odd files.
    warnings.simplefilter("ignore")
    Image.init()
    with suppress(BrokenPipeError):
        requests, replies = sys.stdin.buffer, _only_for_replies()
        if hasattr(select, "poll"):
            threading.Thread(target=_end_with_the_parent, args=(requests.fileno(),), daemon=True).start()
        _answer(requests, replies)


def _answer(requests: BinaryIO, replies: BinaryIO) -> None:
    with suppress(EOFError):
        while True:
            text, first = _receive(requests)
            request = json.loads(text)
            file = LargeFile(_Asked(requests, replies, request["size"], first), _PART)
            if (preprocessing := request["job"]["preprocessing"]) is not None:
                request["job"]["preprocessing"] = Preprocessing(**preprocessing)
            if request["job"]["drawing"]:
                # What reads strokes is made first: the limit may have no room beside what an earlier picture left.
                images.read_strokes(b"[]")
            try:
                with ProcessLimits(**request["limits"]).applied() as declare:
                    job = Job(**request["job"])
                    by_parts = request["size"] > _WHOLE and not job.sent
                    opened = job.run(file if by_parts else images.read_whole(file), declare)
            except Exception as error:
                if type(error) is ImportError:
                    # The same for decoders of rare formats: a new process has room.
                    return
                _send_error(replies, error)
            else:
                _send_picture(replies, opened)


def _only_for_replies() -> BinaryIO:
    """Returns standard output for replies alone; standard error closes once the parent knows this is ready."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    replies.write(READY)
    replies.flush()
    os.dup2(nowhere, sys.stderr.fileno())
    return replies


def _end_with_the_parent(requests: int) -> None:
    """Ends this process as soon as its parent has ended, even while decoding."""
    poll = select.poll()
    # Without events, only the end of the other side is reported.
    poll.register(requests, 0)
    poll.poll()
    os._exit(0)


if __name__ == "__main__":
    main()
