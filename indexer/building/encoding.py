"""Photos through the network on all cores."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import torch

from model import Matcher, Tokens
from model.matcher import ENCODE_CHUNK


class PhotoEncoder:
    """Encodes photos with a matcher: on the CPU several chunks at a time, each in a thread of its own.

    PyTorch's own threads share one chunk and wait for each other, at full load, at every step of the network: as soon
    as anything else wants a core, decoding the next photos for one, that takes several times as long. Whole chunks
    apart wait for nothing. A context manager: inside it, threads that are started anew compute on fewer cores.

    Args:
        at_once: photos that ``encode`` is given at most.
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
        # A thread that sets its own number also sets that of all threads to come.
        torch.set_num_threads(self._threads)

    def encode(self, pixels: Sequence[torch.Tensor]) -> Tokens:
        """Photos (3, H, W) each, at least one -> their tokens, as ``Matcher.encode`` gives them."""
        chunks = [pixels[start : start + self._chunk] for start in range(0, len(pixels), self._chunk)]
        return Tokens.cat(list(self._pool.map(self._encode, chunks)))

    def _encode(self, pixels: Sequence[torch.Tensor]) -> Tokens:
        return self._matcher.encode(torch.stack(list(pixels)), "photo")
