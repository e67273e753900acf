"""Serves shards on a Ray cluster: Ray Serve places their copies, restarts them, and chooses which one is asked.

Each shard is an application of its own, and so is the encoder. Several servers of the same shards share them: the first
starts them, and the last one ends them. Ray is imported only when it is needed.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar
from uuid import uuid4

from indexer.distributed import connected
from model import Matcher
from model.engine import Floats, Modality, Tokens, set_threads
from model.errors import Refusal
from model.terminal import installed_version
from service.engine import open_matcher
from service.errors import NotReady, QueueFull
from service.gallery import LocalGallery
from service.search import Encode
from service.serving.live_index import LiveIndex
from service.settings import Settings
from service.sharding import GenerationGone, Pending, ShardRefuses, ShardsRefused, ShardUnavailable, State, WrongAnswer

P = ParamSpec("P")
T = TypeVar("T")

APPLICATION = "sketch-search"
# Seconds between two looks of a copy of a shard for a new generation.
POLL_SECONDS = 0.5
# Generations kept: a search that began with the one before still ends with it.
KEPT = 2
# Questions that one copy of a shard takes at a time, answered one after another, since each uses all of its cores. As
# many as searches may wait.
ONGOING = 8
# Copies of the encoder at most, and sketches for each of them at a time.
ENCODERS, ENCODED_AT_ONCE = 8, 2
# States of applications that another server has started and that go on.
_USED = ("DEPLOYING", "RUNNING", "UNHEALTHY")
QUIET: dict[str, Any] = {"logging_config": {"log_level": "WARNING", "enable_access_log": False}}
# Seconds after which a client that a shard turned away may ask again.
_RETRY_SECONDS = 1


@dataclass(frozen=True)
class Answer(Generic[T]):
    """An answer, or the error for whoever asked: as a value, since Ray would wrap what is raised."""

    value: T | None
    error: Refusal | None = None

    def get(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


def _answered(compute: Callable[[], T]) -> Answer[T]:
    try:
        return Answer(compute())
    except Refusal as error:
        return Answer(None, error)


def _begin(settings: Settings) -> None:
    """Prepares this process of Ray's: with the settings' threads, and without the port that Serve would open."""
    from grpc.aio import _server

    for name in ("add_insecure_port", "add_secure_port"):
        setattr(_server.Server, name, lambda *_: 0)
    if settings.threads is not None:
        set_threads(settings.threads)


class ShardReplica:
    """A copy of a shard, in a process of Ray's. Serve calls its methods from threads."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        _begin(settings)
        # Ray counts the copy as ready after this: nothing is asked while the checkpoint is opened.
        matcher = open_matcher(settings)
        self._index = LiveIndex(folder, lambda: matcher, settings.gallery, KEPT)
        self._turn = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._index.refresh()
            time.sleep(POLL_SECONDS)

    def state(self) -> Answer[State]:
        return _answered(lambda: state_of(self._index))

    def answer(self, generation_id: str, question: Callable[..., T], *arguments: Any) -> Answer[T]:
        with self._turn:
            return _answered(lambda: answer_of(self._index, generation_id, question, *arguments))


def state_of(index: LiveIndex) -> State:
    """Returns the generation of a shard that is in use. Raises ShardRefuses."""
    newest = index.newest
    if newest is None:
        index.refresh()
        newest = index.newest
    if newest is None:
        raise ShardRefuses(index.reason or "it was not opened yet")
    return State(newest.generation_id, index.refused)


def answer_of(index: LiveIndex, generation_id: str, question: Callable[..., T], *arguments: Any) -> T:
    """Answers a question by this generation of a shard alone. Raises GenerationGone and ShardRefuses."""
    with ExitStack() as leases:
        shard = leases.enter_context(index.lease(generation_id))
        if shard is None:
            # Another copy of this shard may have seen it earlier.
            index.refresh()
            state_of(index)
            shard = leases.enter_context(index.lease(generation_id))
        if shard is None:
            raise GenerationGone(f"generation {generation_id} no longer exists")
        return question(shard, *arguments)


class EncoderReplica:
    """A copy of the encoder, in a process of Ray's."""

    def __init__(self, settings: Settings) -> None:
        _begin(settings)
        self._matcher = open_matcher(settings)
        self._turn = threading.Lock()

    def encode(self, images: Floats, modality: Modality, variants: int | None = None) -> Answer[Tokens]:
        with self._turn:
            return _answered(lambda: self._matcher.encode(images, modality, variants))


class Response(Generic[T]):
    """A question on its way to a copy of a shard, or to the next one if that has ended."""

    def __init__(self, send: Callable[[], Any]) -> None:
        self._send, self._sent = send, send()

    def result(self, seconds: float) -> T:
        from ray.exceptions import RayActorError, RayError
        from ray.serve.exceptions import BackPressureError, RayServeException

        until = time.monotonic() + seconds
        try:
            try:
                return self._got(self._sent, seconds)
            except RayActorError:
                # Serve sends it to no other copy by itself once it was sent.
                return self._got(self._send(), max(0.0, until - time.monotonic()))
        except TimeoutError as error:
            raise ShardUnavailable(f"it did not answer within {seconds:.1f} s") from error
        except BackPressureError as error:
            raise QueueFull(_RETRY_SECONDS) from error
        except (RayError, RayServeException) as error:
            raise ShardUnavailable(f"it has ended ({type(error).__name__})") from error

    def _got(self, response: Any, seconds: float) -> T:
        try:
            answer = response.result(timeout_s=seconds)
        except TimeoutError:
            response.cancel()
            raise
        if not isinstance(answer, Answer) or not isinstance(answer.error, Refusal | None):
            raise WrongAnswer("what it sends is no answer")
        found: T = answer.get()
        return found


class RayShard:
    """The way to the copies of one shard; see ``ShardLink``."""

    def __init__(self, name: str, handle: Any) -> None:
        self.name, self._handle = name, handle

    def state(self) -> Pending[State]:
        return Response(self._handle.state.remote)

    def ask(
        self,
        generation_id: str,
        question: Callable[Concatenate[LocalGallery, P], T],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> Pending[T]:
        return Response(lambda: self._handle.answer.remote(generation_id, partial(question, **options), *arguments))


@dataclass(frozen=True)
class Deployed:
    """The ways to the shards, in their order, and to what encodes pictures."""

    links: tuple[RayShard, ...]
    encode: Encode


class Ingress:
    """An actor that lives as long as a server of shards does: other servers see by it that the copies are in use."""


@contextmanager
def deployed(settings: Settings, folders: Sequence[Path], names: Sequence[str], matcher: Matcher) -> Iterator[Deployed]:
    """Has a Ray cluster serve shards while the block runs. matcher: encodes a sketch that comes alone.

    Copies that another server has started with the same settings are shared.

    Raises BadInvocation without Ray or its cluster, ShardsRefused if that has too few resources.
    """
    with connected(settings.ray or "auto"):
        import ray
        from ray import serve

        each = _resources(settings)
        _check_room(each, len(folders) * settings.replicas + 1)
        gallery = f"{APPLICATION}-{_digest(settings, folders)}"
        applications = [*(f"{gallery}-{number}" for number in range(len(folders))), f"{gallery}-encoder"]
        own = str(uuid4())
        ingress = ray.remote(num_cpus=0)(Ingress).options(name=own, namespace=gallery).remote()
        try:
            serve.start(proxy_location="Disabled", **QUIET)
            there = serve.status().applications
            if not all(name in there and there[name].status in _USED for name in applications):
                _start(settings, folders, applications, each)
            *shards, encoding = map(serve.get_app_handle, applications)
            links = tuple(RayShard(name, handle) for name, handle in zip(names, shards, strict=True))
            yield Deployed(links, Encoder(encoding, settings, matcher))
        finally:
            ray.kill(ingress)
            servers = ray.util.list_named_actors(all_namespaces=True)
            if all(one["namespace"] != gallery or one["name"] == own for one in servers):
                for name in applications:
                    serve.delete(name)


def _digest(settings: Settings, folders: Sequence[Path]) -> str:
    """Returns what tells galleries, and how their copies compute, apart on a cluster."""
    how = settings.model_dump_json(include={"weights", "device", "dtype", "threads", "variants", "gallery", "replicas"})
    told = [installed_version(), how, *(str(folder.resolve()) for folder in folders)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]


def _start(settings: Settings, folders: Sequence[Path], applications: Sequence[str], each: Mapping[str, float]) -> None:
    """Starts the copies of shards and encoder. each: what one of them reserves."""
    from ray import serve

    # No key leaves this process.
    sent = settings.model_copy(update={"api_key": None})
    options: dict[str, Any] = {"max_queued_requests": max(1, settings.queue), "ray_actor_options": each, **QUIET}
    shard = serve.deployment(ShardReplica, num_replicas=settings.replicas, max_ongoing_requests=ONGOING, **options)
    encoder = serve.deployment(
        EncoderReplica,
        autoscaling_config={"min_replicas": 1, "max_replicas": ENCODERS, "target_ongoing_requests": ENCODED_AT_ONCE},
        max_ongoing_requests=2 * ENCODED_AT_ONCE,
        **options,
    )
    bound = [*(shard.bind(folder, sent) for folder in folders), encoder.bind(sent)]
    targets = [
        serve.RunTarget(target, name=name, route_prefix=None, **QUIET)
        for target, name in zip(bound, applications, strict=True)
    ]
    serve.run_many(targets, wait_for_applications_running=False)


def _resources(settings: Settings) -> dict[str, float]:
    """Returns what each copy of a shard, and of the encoder, reserves."""
    cpus = {"num_cpus": float(settings.threads or 1)}
    return {**cpus, "num_gpus": 1.0} if settings.device == "cuda" else cpus


def _check_room(each: dict[str, float], copies: int) -> None:
    """Raises ShardsRefused if the cluster is too small for so many copies."""
    import ray

    there = ray.cluster_resources()
    for option, name in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
        needed, has = each.get(option, 0.0) * copies, float(there.get(name, 0.0))
        if needed > has:
            raise ShardsRefused(
                f"the Ray cluster has {has:g} {name}s, and {copies} copies of shards and the encoder need {needed:g}; "
                "add machines, or have fewer shards or --replicas."
            )


class Encoder:
    """Encodes one picture at a time in this process, and others meanwhile by the copies of the encoder.

    Sending a picture that comes alone would take a tenth of a search's time. Copies that have GPUs encode all.
    """

    def __init__(self, handle: Any, settings: Settings, matcher: Matcher) -> None:
        self._handle, self._seconds, self._matcher = handle, settings.shard_seconds, matcher
        self._here = settings.device != "cuda" and matcher.device == "cpu"
        self._turn = threading.Lock()

    def __call__(self, images: Floats, modality: Modality, variants: int | None = None) -> Tokens:
        """Encodes like ``Matcher.encode``. Raises NotReady if no copy of the encoder answers."""
        if self._here and self._turn.acquire(blocking=False):
            try:
                return self._matcher.encode(images, modality, variants)
            finally:
                self._turn.release()
        sent: Response[Tokens] = Response(lambda: self._handle.encode.remote(images, modality, variants))
        try:
            return sent.result(self._seconds)
        except ShardUnavailable as error:
            raise NotReady(f"Sketches cannot be encoded now: {error}. Try again in a moment.") from error
