"""Calls the command that was named; `sketch-search openapi` is here itself."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from model.terminal import printable
from service.commands.demo import demo
from service.commands.explain import draw_figures, explain
from service.commands.search import search, search_query
from service.commands.serve import serve
from service.errors import BadSearch
from service.http import create_app
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
        raise BadSearch(describe_problems(error.errors())) from error


def _call(options: argparse.Namespace) -> int:
    match options.command:
        case "serve":
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
            return search(
                _settings(options),
                options.sketch,
                search_query(options),
                like=options.like or (),
                unlike=options.unlike or (),
                as_json=options.as_json,
            )
        case "explain":
            return explain(
                _settings(options),
                options.sketch,
                options.photos,
                options.output,
                like=options.like,
                kind=options.kind,
            )
        case "figures":
            return draw_figures(_settings(options), options.sketches, options.output)
        case "demo":
            return demo(_settings(options, port=options.port), options.folder, options.photos)
        case "openapi":
            return write_document(options.output)
        case unknown:
            raise ValueError(f"there is no command {unknown!r}")


def _settings(options: argparse.Namespace, **further: Any) -> Settings:
    """The settings of the environment, but for those that the command line names; None: it does not name it."""
    named = {"index": options.index, "weights": options.weights, "device": options.device, **further}
    settings = Settings(**{name: value for name, value in named.items() if value is not None})
    if settings.threads is not None:
        # For the whole process, so that the program decides it, and no library.
        torch.set_num_threads(settings.threads)
    return settings


# The committed document. A test compares it with what the routes say.
OPENAPI = Path(__file__).parent.parent / "http" / "openapi.json"


def write_document(output: Path | None) -> int:
    """Write the OpenAPI document to ``output``; None: print it."""
    # The defaults, whatever the environment says.
    document: dict[str, Any] = create_app(Settings.model_construct()).openapi()
    text = json.dumps(document, indent=2)
    if output is None:
        print(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")
        print(printable(str(output)))
    return 0
