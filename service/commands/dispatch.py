"""Calls the command that was named."""

from __future__ import annotations

import argparse
from typing import Any

import httpx
import torch
from pydantic import ValidationError

from model.terminal import Refusal
from service.commands.demo import demo
from service.commands.evaluation import evaluate
from service.commands.explain import draw_figures, explain
from service.commands.openapi import write_document
from service.commands.search import search, search_query
from service.commands.serve import serve
from service.errors import BadSearch
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
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Refusal(f"the server does not answer: {error}") from error


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
        case "evaluate":
            return evaluate(
                options.url,
                _settings(options, api_key=options.api_key).api_key,
                data=options.data,
                split=options.split,
                per_class=options.per_class,
                k=options.k,
                methods=options.method,
                nprobes=options.nprobe,
                clicks=options.feedback,
                as_json=options.as_json,
            )
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
