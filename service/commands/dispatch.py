"""Calls the command that was named; `sketch-search openapi` is here itself.

It imports no other command: the libraries of some take seconds to load, and those of extras may not be installed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model.errors import Refusal
from model.terminal import importing, printable
from service.schemas import describe_problems
from service.settings import Settings


def run(options: argparse.Namespace) -> int:
    """Run the command that the options name. Returns its exit code.

    Raises:
        Refusal, OSError: it cannot be done, for a reason that the user can mend.
    """
    try:
        return _call(options)
    except ValidationError as error:
        raise Refusal(describe_problems(error.errors())) from error


def _call(options: argparse.Namespace) -> int:
    match options.command:
        case "serve":
            with importing():
                from service.commands.serve import serve

            settings = _settings(
                options,
                host=options.host,
                port=options.port,
                ray=options.ray,
                shards=options.shards,
                replicas=options.replicas,
            )
            return serve(settings, options.folders, browser=options.open)
        case "search":
            with importing():
                from service.commands.search import search, search_query

            return search(
                _settings(options),
                options.sketch,
                search_query(options),
                like=options.like or (),
                unlike=options.unlike or (),
                as_json=options.as_json,
                server=options.server,
            )
        case "explain":
            with importing():
                from service.commands.explain import explain

            return explain(
                _settings(options),
                options.sketch,
                options.photos,
                options.output,
                like=options.like,
                kind=options.kind,
            )
        case "demo":
            with importing():
                from service.commands.demo import demo

            return demo(_settings(options, port=options.port), options.folder, options.photos)
        case "openapi":
            return write_document(options.output)
        case unknown:
            raise ValueError(f"there is no command {unknown!r}")


def _settings(options: argparse.Namespace, **further: Any) -> Settings:
    """Returns the settings of the environment, but for those that the command line names; None: it does not name it."""
    named = {"index": options.index, "weights": options.weights, "device": options.device, **further}
    settings = Settings(**{name: value for name, value in named.items() if value is not None})
    if settings.threads is not None:
        from model.engine import set_threads

        # For the whole process, so that the program decides it, and no library.
        set_threads(settings.threads)
    return settings


# The committed document. A test compares it with what the routes say.
OPENAPI = Path(__file__).parent.parent / "http" / "openapi.json"


def write_document(output: Path | None) -> int:
    """Write the OpenAPI document to ``output``; None: print it."""
    with importing():
        from service.http import create_app

    # The defaults, whatever the environment says.
    document: dict[str, Any] = create_app(Settings.model_construct()).openapi()
    text = json.dumps(document, indent=2)
    if output is None:
        print(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")
        print(printable(str(output)))
    return 0
