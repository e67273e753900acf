"""The command line: `python -m service` serves, `search` searches without a server; installed as `sketch-search`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from pydantic import ValidationError
from tqdm import tqdm

from model.images import open_image
from service.client import Client, ServiceError
from service.commands.demo import Demo, prepare, search_once
from service.commands.evaluation import evaluate_server, figures_table, labelled_sketches
from service.engine import Engine, open_matcher
from service.errors import REFUSALS
from service.explain import NamedPhoto
from service.http import configure, create_app, told
from service.schemas import SearchParams, SearchResponse
from service.serving import PortTaken, address, listening, metrics_served, server_config
from service.settings import Settings

OPENAPI = Path(__file__).parent.parent / "http" / "openapi.json"
BAD_INPUT = 2
STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0, or 2 with a sentence on stderr for what whoever asked can mend."""
    asked = vars(_parser().parse_args(arguments))
    command = asked.pop("command")
    overrides = {name: asked.pop(name) for name in tuple(asked) if name in Settings.model_fields}
    try:
        if command == "openapi":
            return _openapi(**asked)
        settings = Settings(**overrides)
        if command == "evaluate":
            return _evaluate(settings, **asked)
        if command == "demo":
            return _demo(settings, **asked)
        if command == "explain":
            return _explain(settings, **asked)
        if command == "figures":
            return _figures(settings, **asked)
        return _search(settings, **asked) if command == "search" else _serve(settings)
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return STOPPED
    except ValidationError as error:
        return _refused(told(error.errors()))
    except OSError as error:
        return _refused(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except httpx.HTTPError as error:
        return _refused(f"the server does not answer: {error}")
    except ServiceError as error:
        return _refused(str(error))
    except REFUSALS as error:
        return _refused(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sketch-search",
        description="Draw something, find the photos of it. Without a command: serve, at http://127.0.0.1:8000.",
        epilog="Every setting is also an environment variable: SBIR_HOST, SBIR_PORT, SBIR_INDEX and so on.",
        argument_default=argparse.SUPPRESS,
    )
    _add_settings(parser)
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (8000); 0 takes any free one")
    commands = parser.add_subparsers(dest="command", title="commands")
    parser.set_defaults(command="serve")

    search = commands.add_parser("search", help="search without a server", argument_default=argparse.SUPPRESS)
    _add_settings(search)
    search.add_argument("sketch", help="an image file, or - for standard input")
    search.add_argument("--k", help="results wanted (20)")
    search.add_argument("--offset", help="results to skip")
    # Not the setting of that name: asked for beside --nprobe it is refused, as over HTTP.
    search.add_argument("--select", dest="chosen_by", help="what chooses the photos scored: clusters or ret (ret)")
    search.add_argument("--nprobe", help="choose by so many clusters, or all for the exhaustive search")
    search.add_argument("--method", help="rn, ret, fused or auto")
    search.add_argument(
        "--thin", help="photos that [Ret] lets through to the relation network (96 or 192 by ret, else all)"
    )
    search.add_argument(
        "--diffuse", choices=["yes", "no"], help="photos that look alike lend each other their scores (yes with auto)"
    )
    search.add_argument("--budget-ms", help="score no further photos after this many milliseconds")
    search.add_argument("--json", dest="as_json", action="store_true", default=False, help="print what /search answers")

    explain = commands.add_parser(
        "explain", help="show on pictures why photos match a sketch", argument_default=argparse.SUPPRESS
    )
    _add_settings(explain)
    explain.add_argument("sketch", type=Path, help="an image file")
    explain.add_argument("photos", type=Path, nargs="*", default=[], metavar="PHOTO", help="(the best of the index)")
    explain.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the pictures")

    figures = commands.add_parser(
        "figures", help="draw figures 3 to 8 of the ZSE-SBIR paper", argument_default=argparse.SUPPRESS
    )
    _add_settings(figures)
    figures.add_argument("sketches", type=Path, nargs="+", metavar="SKETCH", help="an image file")
    figures.add_argument("--training", type=Path, default=None, metavar="DIR", help="training photos, for figure 8a")
    figures.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the figures")

    demo = commands.add_parser(
        "demo", help="index a sample gallery, serve it, search it once", argument_default=argparse.SUPPRESS
    )
    demo.add_argument("folder", type=Path, metavar="DIR", help="where to keep the gallery and its index")
    demo.add_argument("--photos", type=Path, default=None, help="photos to index instead of the sample gallery")
    demo.add_argument("--weights", type=Path, help="checkpoint, a safetensors file (the embedded one)")
    demo.add_argument("--port", type=int, help="port to listen on (8000); 0 takes any free one")

    evaluate = commands.add_parser("evaluate", help="measure a running server with labelled sketches")
    evaluate.add_argument("--url", default="http://127.0.0.1:8000", help="the server (http://127.0.0.1:8000)")
    evaluate.add_argument("--api-key", default=argparse.SUPPRESS, help="the server's key (SBIR_API_KEY)")
    evaluate.add_argument(
        "--data",
        type=Path,
        help="sketch/<class>/*, of photos indexed as .../<class>/* (SKETCH_SEARCH_DATA)",
    )
    evaluate.add_argument(
        "--split", choices=["val", "unseen", "train"], default="val", help="classes of SKETCH_SEARCH_DATA (val)"
    )
    evaluate.add_argument("--per-class", type=int, default=4, metavar="N", help="sketches of each class (4)")
    evaluate.add_argument("--k", type=int, default=10, help="results looked at (10)")
    evaluate.add_argument("--method", action="append", help="one to measure, again for more (auto and all there are)")
    evaluate.add_argument("--nprobe", action="append", type=int, help="also by so many clusters, again for more")
    evaluate.add_argument("--json", dest="as_json", action="store_true", help="print one JSON object")

    openapi = commands.add_parser("openapi", help="write the OpenAPI document of the HTTP API")
    openapi.add_argument("--output", type=Path, default=OPENAPI, help="file to write (service/http/openapi.json)")
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--index", type=Path, help="folder of the index (the platform's data folder)")
    parser.add_argument("--weights", type=Path, help="checkpoint, a safetensors file (the embedded one)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], help="where to compute (auto)")


def _serve(settings: Settings, meanwhile: Callable[[str], None] | None = None) -> int:
    """Serve until stopped. ``meanwhile`` is called beside it, with the address."""
    app = create_app(settings)
    with ExitStack() as opened:
        try:
            # Bound here, because uvicorn would end the program over a port in use.
            listener = opened.enter_context(listening(settings.host, settings.port))
            if settings.metrics_port is not None:
                port = opened.enter_context(metrics_served(app, settings.host, settings.metrics_port))
                print(f"metrics at {address(settings.host, port)}/metrics", flush=True)
        except PortTaken as error:
            return _refused(str(error))
        url = address(settings.host, listener.getsockname()[1])
        print(f"sketch-search at {url}", flush=True)
        configure(settings.log_format)
        server = uvicorn.Server(server_config(app))
        if meanwhile is not None:
            threading.Thread(target=meanwhile, args=(url,), daemon=True).start()
        with suppress(KeyboardInterrupt):  # which uvicorn raises again once it has stopped
            server.run(sockets=[listener])
    return 0 if server.started else 1


def _demo(settings: Settings, folder: Path, photos: Path | None) -> int:
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the server's own log tells of the same request
    print("preparing the gallery and its index", flush=True)
    demo = prepare(settings, folder, photos, bar=sys.stderr.isatty())
    report = demo.report
    print(f"{demo.gallery}: {demo.contents}")
    print(f"{report.encoded} of them encoded now, in {report.seconds:.1f} s")
    for bad in report.bad:
        print(f"not indexed: {_plain(bad.path)}: {bad.reason}")
    return _serve(demo.settings, lambda url: _show_first_search(demo, url))


def _show_first_search(demo: Demo, url: str) -> None:
    try:
        answer = search_once(demo, url)
    except (ServiceError, httpx.HTTPError) as error:
        print(f"sketch-search: the first search failed: {error}", file=sys.stderr)
        return
    print(f"\n{demo.sketch} finds, in {answer.timings_ms.total:.0f} ms:\n\n{_table(answer)}\n")
    print(f"Draw your own at {url} (Ctrl-C ends)", flush=True)


def _search(settings: Settings, sketch: str, as_json: bool, **params: str) -> int:
    if "chosen_by" in params:
        params["select"] = params.pop("chosen_by")
    wanted = SearchParams.model_validate(params)
    data = sys.stdin.buffer.read() if sketch == "-" else Path(sketch).read_bytes()
    with closing(Engine(settings, open_matcher(settings))) as engine:
        answer = engine.search(data, wanted)
    print(answer.model_dump_json() if as_json else _table(answer))
    return 0


def _explain(settings: Settings, sketch: Path, photos: list[Path], output: Path) -> int:
    matcher = open_matcher(settings)
    named = [NamedPhoto(str(photo), matcher.open(photo, "photo")) for photo in photos]
    with closing(Engine(settings, matcher)) as engine:
        written = engine.explain_into(open_image(sketch), named, output)
    print(*written, sep="\n")
    return 0


def _figures(settings: Settings, sketches: list[Path], training: Path | None, output: Path) -> int:
    with closing(Engine(settings, open_matcher(settings))) as engine:
        written = engine.figures_into(sketches, output, training)
    print(*written, sep="\n")
    if training is None:
        print("figure8a.png is left out: it shows photos that the network was trained on (--training DIR)")
    return 0


def _evaluate(
    settings: Settings,
    url: str,
    data: Path | None,
    split: str,
    per_class: int,
    k: int,
    method: list[str] | None,
    nprobe: list[int] | None,
    as_json: bool,
) -> int:
    sketches = labelled_sketches(data, per_class, split)
    nprobes: Sequence[int | None] = (None, *(nprobe or ()))
    key = settings.api_key
    with Client(url, None if key is None else key.get_secret_value()) as client:
        model = client.info().model
        methods = method or (("auto", *model.methods) if model else ())
        total = len(sketches) * (len(nprobes) + 1) * len(methods)
        with tqdm(desc="searching", unit="search", total=total or None, disable=not sys.stderr.isatty()) as bar:
            result = evaluate_server(client, sketches, k=k, methods=methods, nprobes=nprobes, advance=bar.update)
    print(json.dumps(result.as_dict()) if as_json else figures_table(result))
    return 0


def _table(answer: SearchResponse) -> str:
    """Rank, score and path; further paths of the same photo on lines of their own."""
    lines = [f"{'rank':>4}  {'score':>8}  path"]
    for result in answer.results:
        lines.append(f"{result.rank:>4}  {result.score:>8.4f}  {_plain(result.paths[0])}")
        lines += [f"{'':>14}  {_plain(path)}" for path in result.paths[1:]]
    return "\n".join(lines)


def _plain(path: str) -> str:
    """A path without what would move a terminal's cursor or cannot be encoded."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in path)


def _openapi(output: Path) -> int:
    document: dict[str, Any] = create_app(Settings.model_construct()).openapi()
    output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(output)
    return 0


def _refused(sentence: str) -> int:
    print(f"sketch-search: {sentence}", file=sys.stderr)
    return BAD_INPUT
