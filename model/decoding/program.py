"""The program of a decoding process: it decodes pictures from standard input until that ends."""

import os
import select
import sys
import threading
import warnings
from contextlib import suppress
from typing import BinaryIO

from PIL import Image

from sketch_search.model.decoding.pool import READY, lower_limit, receive_request, send_error, send_picture


def main() -> None:
    """Answers requests until the requesting program has ended."""
    # Signals that end this process must not write its memory to a file.
    lower_limit("RLIMIT_CORE", 0)
    # Nobody would read Pillow's warnings about odd files.
    warnings.simplefilter("ignore")
    Image.init()
    with suppress(BrokenPipeError):
        requests, replies = sys.stdin.buffer, _only_for_replies()
        if hasattr(select, "poll"):
            threading.Thread(target=_end_with_the_parent, args=(requests.fileno(),), daemon=True).start()
        _answer(requests, replies)


def _answer(requests: BinaryIO, replies: BinaryIO) -> None:
    while (request := receive_request(requests)) is not None:
        try:
            job, limits, data = request
            with limits.applied() as declare:
                opened = job.run(data, declare)
        except Exception as error:
            send_error(replies, error)
        else:
            send_picture(replies, opened)


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
