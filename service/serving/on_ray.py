"""Serves shards on a Ray cluster, which places their copies and restarts them.

Each copy of a shard is an actor, and so is each copy of the encoder. Several servers of the same shards share them: the
first starts them, and the last one ends them. Ray is imported only when it is needed.
"""

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from numpy.typing import ArrayLike

from sketch_search.indexer.distributed import connected
from sketch_search.model import Matcher
from sketch_search.model.engine import Floats, Modality, Tokens, set_threads
from sketch_search.model.errors import UserError
from sketch_search.model.terminal import installed_version
from sketch_search.service.engine import open_matcher
from sketch_search.service.errors import NotReady
from sketch_search.service.serving.live import POLL_SECONDS, LiveIndex
from sketch_search.service.settings import Settings
from sketch_search.service.sharding import Pending, ShardRefuses, ShardsRefused, ShardUnavailable, State

T = TypeVar("T")

APPLICATION = "sketch-search"
# Generations kept: a search that began with the previous one still ends with it.
KEPT = 2
# The prefix of the names of actors that represent servers.
_SERVER = "server-"


class Shard(LiveIndex):
    def state(self) -> State:
        """Returns the generation in use. Raises ShardRefuses."""
        if self.newest is None:
            self.refresh()
        if (newest := self.newest) is None:
            raise ShardRefuses(self.reason)
        return State(newest.generation_id, self.refused)

    def answer(self, generation_id: str, question: Callable[..., T], *arguments: Any) -> T:
        """Answers a request from exactly this generation. Raises ShardUnavailable if it is gone."""
        if self.find(generation_id) is None:
            # Another copy of this shard may have seen it earlier.
            self.refresh()
            self.state()
        if (shard := self.find(generation_id)) is None:
            raise ShardUnavailable(f"generation {generation_id} no longer exists")
        return question(shard, *arguments)


class ShardReplica(Shard):
    """A copy of a shard, in a process of Ray. It handles one request after another: each uses all of its cores."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        # Ray sets one for each of its CPUs.
        set_threads(settings.threads)
        # A checkpoint that cannot be opened now is tried again, like an index.
        matcher = lru_cache(maxsize=1)(partial(open_matcher, settings))
        super().__init__(folder, matcher, settings.gallery, KEPT)
        # Ray counts the copy as ready after this: no requests arrive while index and checkpoint are opened.
        self.refresh()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            self.refresh()


class EncoderReplica:
    def __init__(self, settings: Settings) -> None:
        set_threads(settings.threads)
        self._matcher = open_matcher(settings)

    def encode(self, images: Floats, modality: Modality, variants: int | None) -> Tokens:
        return self._matcher.encode(images, modality, variants)


class Copies:
    """Actors that handle the same requests, in turns; those of a shard are its ``ShardLink``."""

    def __init__(self, name: str, actors: Sequence[Any]) -> None:
        self.name, self._actors, self._turns = name, tuple(actors), itertools.count()

    def call(self, method: str, *arguments: Any) -> Pending[Any]:
        """Sends a request to a copy, and to the next one if that has ended."""
        first = next(self._turns) % len(self._actors)
        copies = [*self._actors[first:], *self._actors[:first]]
        sends = (getattr(copy, method).remote(*arguments) for copy in copies)
        sent_first = next(sends)

        def result(seconds: float) -> Any:
            import ray
            from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

            until = time.monotonic() + seconds
            ended: RayError | None = None
            for sent in itertools.chain([sent_first], sends):
                try:
                    return ray.get(sent, timeout=max(0.0, until - time.monotonic()))
                except RayError as error:
                    # Ray wraps errors of the copy.
                    if isinstance(error, RayTaskError) and isinstance(error.cause, UserError):
                        raise error.cause from error
                    if isinstance(error, GetTimeoutError):
                        ray.cancel(sent)
                        raise ShardUnavailable(f"it did not answer within {seconds:.1f} s") from error
                    ended = error
                    if not isinstance(error, RayActorError):
                        break
            raise ShardUnavailable(f"it has ended ({type(ended).__name__})") from ended

        return result

    def state(self) -> Pending[State]:
        return self.call("state")

    def ask(self, generation_id: str, question: Callable[..., T], *arguments: Any) -> Pending[T]:
        return self.call("answer", generation_id, question, *arguments)


class Ingress:
    """An actor that lives as long as a server of shards: it shows other servers that the copies are in use."""


@contextmanager
def deployed(
    settings: Settings, folders: Sequence[Path], names: Sequence[str], matcher: Matcher
) -> Iterator[tuple[tuple[Copies, ...], Matcher]]:
    """Serves shards on a Ray cluster while the block runs: yields their links, in order, and the matcher.

    matcher: encodes a sketch that arrives alone.

    Copies started by another server with the same settings are shared.

    Raises BadInvocation without Ray or its cluster, ShardsRefused if that has too few resources.
    """
    with connected(settings.ray or "auto"):
        import ray

        # The resources that each copy of a shard, and of the encoder, reserves.
        need = {"num_cpus": float(settings.threads or 1), "num_gpus": float(settings.device == "cuda")}
        _check_room(need, (len(folders) + 1) * settings.replicas)
        gallery = f"{APPLICATION}-{_digest(settings, folders)}"
        server_name = f"{_SERVER}{uuid4()}"
        ingress = ray.remote(num_cpus=0)(Ingress).options(name=server_name, namespace=gallery).remote()
        # No key leaves this process.
        sent = settings.model_copy(update={"api_key": None, "api_key_file": None})

        def copies(shown: str, name: str, replica: type, *arguments: Path) -> Copies:
            # The process has the name of the class.
            actor = ray.remote(type(f"{gallery}-{name}", (replica,), {}))
            options = {"namespace": gallery, "lifetime": "detached", "get_if_exists": True, "max_restarts": -1, **need}
            start = partial(actor.options, scheduling_strategy="SPREAD", **options)
            return Copies(shown, [start(name=f"{name}-{n}").remote(sent, *arguments) for n in range(settings.replicas)])

        try:
            named = enumerate(zip(names, folders, strict=True))
            shards = tuple(copies(name, str(number), ShardReplica, folder) for number, (name, folder) in named)
            yield shards, SharedMatcher(matcher, copies("encoder", "encoder", EncoderReplica), settings)
        finally:
            ray.kill(ingress)
            actors = ray.util.list_named_actors(all_namespaces=True)
            names_here = {actor["name"] for actor in actors if actor["namespace"] == gallery} - {server_name}
            if not any(name.startswith(_SERVER) for name in names_here):
                for name in names_here:
                    # Another server may end them at the same moment.
                    with suppress(ValueError):
                        ray.kill(ray.get_actor(name, gallery))


def _digest(settings: Settings, folders: Sequence[Path]) -> str:
    """Returns a digest that identifies a gallery and its copies' settings on a cluster."""
    text = settings.model_dump_json(
        include={"weights", "device", "dtype", "threads", "variants", "gallery", "replicas"}
    )
    parts = [installed_version(), text, *(str(folder.resolve()) for folder in folders)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _check_room(need: dict[str, float], copies: int) -> None:
    """Raises ShardsRefused if the cluster is too small for so many copies."""
    import ray

    resources = ray.cluster_resources()
    for option, name in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
        needed, has = need[option] * copies, float(resources.get(name, 0.0))
        if needed > has:
            raise ShardsRefused(
                f"the Ray cluster has {has:g} {name}s, but {copies} copies of shards and the encoder need {needed:g}; "
                "add machines, or have fewer shards or --replicas."
            )


class SharedMatcher(Matcher):
    """Encodes here while nothing else does, which saves a tenth of a search; else, and with GPUs, by copies."""

    def __init__(self, matcher: Matcher, copies: Copies, settings: Settings) -> None:
        super().__init__(matcher.engine, matcher.checkpoint_sha256, variants=matcher.variants)
        self._copies, self._seconds = copies, settings.shard_seconds
        self._here = settings.device != "cuda" and matcher.device == "cpu"
        self._turn = threading.Lock()

    def encode(self, pictures: ArrayLike, modality: Modality, variants: int | None = None) -> Tokens:
        """Encodes like ``Matcher.encode``. Raises NotReady if no copy of the encoder answers."""
        if self._here and self._turn.acquire(blocking=False):
            try:
                return super().encode(pictures, modality, variants)
            finally:
                self._turn.release()
        sent: Pending[Tokens] = self._copies.call("encode", pictures, modality, variants)
        try:
            return sent(self._seconds)
        except ShardUnavailable as error:
            raise NotReady(f"Sketches cannot be encoded now: {error}. Try again in a moment.") from error
