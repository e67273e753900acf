"""The server of a shard answers by the generation that is live, and the one before for searches that began with it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from indexer import IndexerError, live_stamp, open_index
from model import Matcher, ModelError
from service.sharding.errors import GenerationGone, ShardRefuses
from service.sharding.shard import Call, Overview, Shard

T = TypeVar("T")

# The generation in use and the one before: a search that began with that one still ends with it.
KEPT = 2


class ShardServer:
    """Answers for one shard: by the generation that is live, or by the one before where a search began with that.

    Its methods may be called from any thread.

    Attributes:
        refusal: why what is live on the disk is not used; None where it is.
    """

    def __init__(self, folder: Path, matcher: Matcher, gallery_roots: Sequence[Path] = ()) -> None:
        """Opens nothing yet. gallery_roots: where the roots are on this machine; none for where they were built."""
        self._folder, self._matcher, self._roots = folder, matcher, gallery_roots or None
        self._opened: OrderedDict[str, Shard] = OrderedDict()
        self._lock = threading.Lock()
        self._stamp: object = None
        self.refusal: str | None = "it was not opened yet"

    def refresh(self) -> str | None:
        """Open what is live on the disk, if it is not in use. Returns the ``made`` of what is in use; None for none."""
        with self._lock:
            stamp = live_stamp(self._folder)
            if stamp is None or stamp != self._stamp or self.refusal is not None:
                self._open(stamp)
            return next(reversed(self._opened), None)

    def _open(self, stamp: object) -> None:
        try:
            index = open_index(self._folder, self._matcher, gallery_roots=self._roots)
            try:
                fresh = Shard(index, self._matcher)
            except BaseException:
                index.close()
                raise
        except (IndexerError, ModelError, OSError) as error:
            self.refusal = str(error)
            return
        self._stamp, self.refusal = stamp, None
        self._opened[index.made] = fresh
        while len(self._opened) > KEPT:
            # Whoever still uses it has it to the end; its arrays go with the last of them.
            self._opened.popitem(last=False)

    def state(self) -> str:
        """The ``made`` of the generation in use. Raises ShardRefuses where there is none."""
        made = next(reversed(self._opened), None) or self.refresh()
        if made is None:
            raise ShardRefuses(self.refusal or "it has no generation")
        return made

    def overview(self, made: str) -> Overview:
        """Of one of its generations. Raises GenerationGone and ShardRefuses, as ``answer`` does."""
        return self._shard(made).overview()

    def answer(self, made: str, question: Call[T]) -> T:
        """The answer by a generation, and by no other.

        Raises:
            GenerationGone: it is not open here any more, and not live either.
            ShardRefuses: there is none to be opened.
        """
        return question.answer(self._shard(made))

    def _shard(self, made: str) -> Shard:
        shard = self._opened.get(made)
        if shard is None:
            # Another copy of this shard may have seen it earlier.
            if self.refresh() is None:
                raise ShardRefuses(self.refusal or "it has no generation")
            shard = self._opened.get(made)
        if shard is None:
            raise GenerationGone(f"generation {made} is not there any more")
        return shard
