"""`sketch-search serve`, the default command: serves, and indexes folders behind, if any are given.

With `--ray ADDRESS --shards DIR...` it serves a gallery in shards, which a Ray cluster searches. `sketch-search demo`
indexes a gallery in a separate folder, serves it, and searches it once with a sketch.
"""

import errno
import gc
import logging
import math
import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from sketch_search import indexer
from sketch_search.indexer.distributed import check_address
from sketch_search.model import where_it_computes
from sketch_search.model.errors import UserError
from sketch_search.model.files import check_replaceable, write_files
from sketch_search.model.images import as_png
from sketch_search.model.terminal import printable
from sketch_search.service import PROGRAM
from sketch_search.service.commands.search import missing_remark, results_table
from sketch_search.service.engine import open_matcher
from sketch_search.service.http import as_json, configure_logging, create_app
from sketch_search.service.schemas.search import SearchResponse
from sketch_search.service.serving import PortTaken, address, deployed, listening, server_config
from sketch_search.service.settings import (
    ServerAddress,
    Settings,
    announced,
    answers_by,
    find_server,
    index_path,
    redirecting,
    token_of,
)
from sketch_search.service.sharding import Shards, ShardsRefused, check_folders, shard_names

# Addresses that stand for all of this machine's: a browser opens loopback instead.
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
# Searches that this process runs at a time: it mostly waits for the shards.
SEARCHES_AT_ONCE = 8
# Seconds until the first line on the progress of a build behind, and between two looks at it.
FIRST_LINE_SECONDS, LOOK_SECONDS = 4.0, 0.5
# Seconds that the server waits for its shards to start. Shards that start later are searched from then on.
START_SECONDS = 600.0
# What the demo searches for if it finds that, the results that it shows, and how long it waits on a busy machine.
SKETCHED, RESULTS = "umbrella", 5
PATIENCE_SECONDS = 120.0


def serve(settings: Settings, folders: Sequence[indexer.Address], *, browser: bool) -> int:
    """Indexes ``folders``, if any, and serves until stopped; with ``browser`` it opens the page."""
    if settings.ray is not None or settings.shards:
        # click reads all folders after --shards but the first as folders of photos.
        settings = settings.model_copy(update={"shards": (*settings.shards, *map(Path, folders))})
        return serve_shards(settings, browser=browser)
    if folders:
        return serve_indexing(settings, folders, browser=browser)
    if indexer.current_stamp(index_path(settings)) is None:
        missing = f"There is no index yet: choose a folder of photos on the page, or run `{PROGRAM} FOLDER`."
        print(missing, file=sys.stderr)
    return serve_until_stopped(settings, browser=browser)


def serve_until_stopped(
    settings: Settings,
    beside: Callable[[str, str], None] | None = None,
    app: FastAPI | None = None,
    *,
    browser: bool = False,
) -> int:
    """Serves until Ctrl-C or SIGTERM. Returns the exit code. Raises PortTaken.

    The token is printed only on a terminal, else in a file that only this user can read. ``beside`` is called in a
    thread once the server answers, with its address and the printed one. browser: whether to open the page.
    """
    app = create_app(settings) if app is None else app
    answers = answers_by(settings)
    if not settings.shards:
        app.state.token = token_of(index_path(settings))
    with ExitStack() as opened:
        # Bound here, because uvicorn would exit if the port is in use.
        listeners: list[socket.socket] = [opened.enter_context(_listening(settings))]
        if settings.metrics_port is not None:
            further = listening(settings.host, settings.metrics_port, "SKETCH_SEARCH_METRICS_PORT")
            listeners.append(opened.enter_context(further))
            app.state.metrics_port = further.getsockname()[1]
            say(f"metrics at {address(settings.host, app.state.metrics_port)}/metrics", settings)
        port = listeners[0].getsockname()[1]
        opening = "" if settings.shards else f"/?token={app.state.token}"
        configure_logging(settings.log_format)

        def announce() -> None:
            # A server lives on: garbage is collected as usual again, but not looked for in all that is loaded by now.
            gc.freeze()
            gc.set_threshold(2_000)
            if not settings.shards:
                bound = listeners[0].getsockname()[0]
                url = address(_ANY_ADDRESS.get(bound, bound), port)
                server_address = ServerAddress(url=url, token=app.state.token, answers=answers)
                opened.enter_context(announced(index_path(settings), server_address))
            reached = address(_ANY_ADDRESS.get(settings.host, settings.host), port)
            page, on_terminal = reached, sys.stdout.isatty()
            printed = address(settings.host, port) + (opening if on_terminal else "")
            say(f"sketch-search at {printed}", settings)
            if opening and (browser or not (on_terminal or settings.allow_build is False)):
                with suppress(OSError):  # without a file, the page is opened without the token
                    page = opened.enter_context(redirecting(reached + opening))
                    if not on_terminal:
                        say(f"open this file for the page with the token; only you can read it: {page}", settings)
            say(f"computes on {where_it_computes(settings.device)}", settings)
            if beside is not None:
                threading.Thread(target=beside, args=(reached, printed), daemon=True).start()
            if browser:
                threading.Thread(target=_open_page, args=(page,), daemon=True).start()

        app.state.announce = announce
        if threading.current_thread() is threading.main_thread():
            _stop_by_signals(opened)
        server = uvicorn.Server(server_config(app))
        with suppress(KeyboardInterrupt):  # uvicorn raises it again once it has stopped
            server.run(sockets=listeners)
    return 0 if server.started else 1


def _stop_by_signals(opened: ExitStack) -> None:
    # uvicorn raises the signal that stopped it again, which would kill this process.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    opened.callback(signal.signal, signal.SIGTERM, before)
    # A terminal or session that ends sends SIGHUP, which nohup has ignored.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        opened.callback(signal.signal, signal.SIGHUP, signal.SIG_DFL)


def serve_indexing(settings: Settings, folders: Sequence[indexer.Address], *, browser: bool) -> int:
    """Serves at once, and indexes ``folders`` behind. Raises BadInvocation; PortTaken."""
    index = index_path(settings)
    known = indexer.indexed_folders(index)
    for folder in folders:
        # An indexed folder may be on a disk that is not connected now. The build says so, and its photos stay.
        if (opened := indexer.folder_of(folder)) not in known and opened.problem() is not None:
            raise indexer.BadInvocation(
                f"{folder} is neither a folder nor a command; `{PROGRAM} --help` lists the commands."
            )
    request = indexer.BuildRequest(folders, allow_root_removal=False, max_pixels=settings.max_photo_pixels)
    request.check(index)
    open_matcher(settings)
    # The photos are where they are indexed now, whatever SKETCH_SEARCH_GALLERY says.
    served = settings.model_copy(update={"gallery": ()})
    app = create_app(served)
    return serve_until_stopped(served, lambda *_: _index_behind(app, request, served), app, browser=browser)


def _index_behind(app: FastAPI, request: indexer.BuildRequest, settings: Settings) -> None:
    """Builds the index of a server that answers already, and says how far it is: rarely, and then more rarely."""
    builder = app.state.context.builder
    builder.run(request)
    said = pause = FIRST_LINE_SECONDS
    start = time.monotonic()
    while (build := builder.info()) is not None and build.running:
        if time.monotonic() - start >= said and build.total:
            left = "" if build.seconds_left is None else f", about {math.ceil(build.seconds_left / 60)} minutes left"
            say(f"{build.phase}: {build.done} of {build.total} photos{left}; the page finds the first ones", settings)
            said, pause = said + pause, 2 * pause
        time.sleep(LOOK_SECONDS)
    if build is not None and build.failed is not None:
        print(printable(f"error: {build.failed}"), file=sys.stderr, flush=True)
    elif build is not None:
        say(f"index: {index_path(settings)}, up to date", settings)


def check_port(settings: Settings) -> None:
    """Raises PortTaken, before a build that may take long."""
    with _listening(settings):
        pass


def _listening(settings: Settings) -> socket.socket:
    try:
        return listening(settings.host, settings.port)
    except PortTaken as error:
        in_use = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
        if not in_use or (server := find_server(index_path(settings))) is None:
            raise
        raise UserError(f"{error}; this index is already served at {server.url}") from error


def print_build(report: indexer.BuildReport, settings: Settings) -> None:
    for name, fact in report.facts(settings.device):
        say(f"{name}: {fact}", settings)
    for sentence in report.kept:
        print(printable(f"error: {sentence}"), file=sys.stderr)


def say(line: str, settings: Settings) -> None:
    """Prints a line for people, or a JSON object if the log is in JSON."""
    print(as_json(line) if settings.log_format == "json" else printable(line), flush=True)


def _open_page(page: str) -> None:
    if not webbrowser.open(page if "://" in page else Path(page).as_uri()):
        print(f"{PROGRAM}: no browser can be opened here; the page is at {page}", file=sys.stderr)


def serve_shards(settings: Settings, *, browser: bool) -> int:
    """Serves shards by a Ray cluster. Returns the exit code."""
    if settings.ray is None:
        raise indexer.BadInvocation("--shards are searched by a Ray cluster; name it with --ray ADDRESS: auto, local.")
    if not settings.shards:
        raise indexer.BadInvocation("--ray searches shards; name their folders with --shards DIR...")
    folders = [shard for folder in settings.shards for shard in indexer.shard_folders(folder)]
    check_folders(folders)
    check_address(settings.ray)
    with deployed(settings, folders, shard_names(folders), open_matcher(settings)) as (links, matcher):
        shards = Shards(links, settings.shard_seconds)
        say(f"{len(folders)} shards on the Ray cluster {settings.ray}", settings)
        _wait_for(shards)

        app = create_app(settings, matcher, shards, at_once=SEARCHES_AT_ONCE)
        return serve_until_stopped(settings, app=app, browser=browser)


def _wait_for(shards: Shards) -> None:
    """Waits until all shards answer, or START_SECONDS have passed. Raises ShardsRefused, also if none answers."""
    until = time.monotonic() + START_SECONDS
    while shards.missing and time.monotonic() < until:
        shards.refresh(strict=True)
    if not shards.missing:
        return
    missing = "; ".join(f"{shard.name}: {shard.reason}" for shard in shards.infos if not shard.answers)
    if len(shards.missing) == len(shards.links):
        raise ShardsRefused(f"no shard answers ({missing}); inspect the nodes with `ray status`.")
    print(printable(f"{PROGRAM}: missing shards, which are searched once they answer: {missing}"), file=sys.stderr)


def demo(settings: Settings, folder: Path, photos: Path | None) -> int:
    """Indexes ``photos``, or else a sample gallery, serves it until stopped, and shows one search."""
    from sketch_search.indexer.samples import write_samples

    # First, so that without a checkpoint nothing is drawn.
    system = settings.system or "default"
    matcher = open_matcher(settings, system)
    check_port(settings)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the server's own log has the same request
    check_replaceable(folder / f"{SKETCHED}.png")
    print("preparing the gallery and its index", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    samples = folder / "samples"
    if photos is None and not (samples / "photos").is_dir():
        write_samples(samples)
    gallery = photos if photos is not None else samples / "photos"
    # One index for the samples and one for the user's photos, so that neither replaces the other.
    name = "samples-index" if photos is None else "photos-index"
    index = folder / (name if system == "default" else f"{name}-{system}")
    report = indexer.build(index, indexer.BuildRequest([gallery], system=system), matcher, indexer.Progress(bar=True))
    contents = "photos" if photos is not None else "pictures, drawn by this program or from scikit-learn"
    print(printable(f"{gallery}: {report.photos} {contents}"))
    print_build(report, settings)
    served = settings.model_copy(update={"index": index, "gallery": ()})
    return serve_until_stopped(served, lambda url, page: _show_first_search(served, folder, url, page))


def _show_first_search(settings: Settings, folder: Path, url: str, page: str) -> None:
    """Searches at ``url`` with the first of the sample sketches that a photo shows, which is written to ``folder``."""
    import httpx

    from sketch_search.indexer.samples import SKETCHED as NAMES
    from sketch_search.indexer.samples import draw_sketch

    headers = {} if settings.api_key is None else {b"X-API-Key": settings.api_key.get_secret_value().encode()}
    try:
        # A proxy from the environment could not reach this machine.
        with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_SECONDS, trust_env=False) as http:
            answers = dict[str, SearchResponse]()
            for name in dict.fromkeys((SKETCHED, *NAMES)):
                content = as_png(draw_sketch(name))
                response = http.post("/search", content=content, params={"k": RESULTS}).raise_for_status()
                answers[name] = SearchResponse.model_validate_json(response.content)
                if answers[name].sketch_fits:
                    break
    except httpx.HTTPError as error:
        print(printable(f"error: the first search failed: {error}"), file=sys.stderr)
        return
    name = next((name for name, answer in answers.items() if answer.sketch_fits), SKETCHED)
    sketch, answer = folder / f"{name}.png", answers[name]
    write_files({sketch: as_png(draw_sketch(name))})
    heading = printable(f"{sketch} finds, in {answer.timings_ms.total:.0f} ms:")
    print(f"\n{heading}\n\n{results_table(answer)}\n{missing_remark(answer)}")
    if "?" in page:
        print(f"{url} is the page for searching; with ?token=... it may also add and remove folders.")
    print(f"Draw your own at {page} (Ctrl-C ends)", flush=True)
