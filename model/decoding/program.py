"""The program of a decoding process: it decodes what comes through standard input until nothing more comes.

It does not load PyTorch, so it starts quickly and takes little memory.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import warnings
from contextlib import suppress
from typing import BinaryIO

from PIL import Image

from model.decoding.messages import READY, receive_request, send_error, send_picture, without_core_dumps


def main() -> None:
    """Answer requests until the program that asks is gone."""
    without_core_dumps()
    # Pillow warns of odd files. There is nobody to read it.
    warnings.simplefilter("ignore")
    Image.init()
    with suppress(BrokenPipeError):
        requests, replies = sys.stdin.buffer, _only_for_replies()
        if hasattr(select, "poll"):
            threading.Thread(target=_end_with_the_parent, args=(requests.fileno(),), daemon=True).start()
        _answer(requests, replies)


def _answer(requests: BinaryIO, replies: BinaryIO) -> None:
    while (request := receive_request(requests)) is not None:
        request.limits.enter()
        try:
            opened = request.job.run(request.data)
        except Exception as error:
            send_error(replies, error)
        else:
            send_picture(replies, opened)


def _only_for_replies() -> BinaryIO:
    """Standard output, which from now on nothing else can write to: libraries print what they think of a file.

    The parent is told that it may ask before standard error is closed, too: up to there an error is printed.
    """
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    replies.write(READY)
    replies.flush()
    os.dup2(nowhere, sys.stderr.fileno())
    return replies


def _end_with_the_parent(requests: int) -> None:
    """End this process as soon as nobody can send requests any more, even while it decodes."""
    poll = select.poll()
    # Without events, only the end of the other side is reported.
    poll.register(requests, 0)
    poll.poll()
    os._exit(0)


if __name__ == "__main__":
    main()
