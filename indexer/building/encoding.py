"""Encoding photos on all cores."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import torch

from model import Matcher, Tokens
from model.matcher import ENCODE_CHUNK


class PhotoEncoder:
    """Encodes photos with a matcher. On the CPU it encodes several chunks side by side, each in a thread of its own.

    PyTorch's own threads would share one chunk, and wait for each other after each step of the network. Where anything
    else needs a core, such as decoding the next photos, that takes several times as long. Chunks that are computed side
    by side do not wait for each other.

    It is a context manager. While it is entered, threads that are started compute on fewer cores.

    Args:
        at_once: the most photos that ``encode`` is given.
    """

    def __init__(self, matcher: Matcher, at_once: int) -> None:
        self._matcher = matcher
        self._chunk = ENCODE_CHUNK["photo"]
        self._threads = torch.get_num_threads()
        workers = min(self._threads, -(-at_once // self._chunk)) if matcher.device.type == "cpu" else 1
        self._pool = ThreadPoolExecutor(workers, "encode", torch.set_num_threads, (self._threads // workers,))

    def __enter__(self) -> PhotoEncoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        # The pool's threads set the number of cores for themselves and so for all threads that start later.
        torch.set_num_threads(self._threads)

    def encode(self, pixels: Sequence[torch.Tensor]) -> Tokens:
        """The photos' tokens, as ``Matcher.encode`` gives them.

        Args:
            pixels: (3, H, W) for each photo, at least one photo.
        """
        chunks = [pixels[start : start + self._chunk] for start in range(0, len(pixels), self._chunk)]
        return Tokens.cat(list(self._pool.map(self._encode, chunks)))

    def _encode(self, pixels: Sequence[torch.Tensor]) -> Tokens:
        return self._matcher.encode(torch.stack(list(pixels)), "photo")
