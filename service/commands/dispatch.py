"""Calls the command that was named, and turns what goes wrong into a sentence and an exit code."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import httpx
from pydantic import ValidationError

from service.client import ServiceError
from service.commands.demo import demo
from service.commands.evaluation import evaluate
from service.commands.explain import draw_figures, explain
from service.commands.openapi import write_document
from service.commands.search import search, search_query
from service.commands.serve import serve
from service.errors import REFUSALS
from service.http import describe_problems
from service.program import PROGRAM
from service.serving import PortTaken
from service.settings import Settings

BAD_INPUT = 2
STOPPED = 130


def run(options: argparse.Namespace) -> int:
    """Run the command that the options name. Returns its exit code; 2 after a sentence on what the user can mend."""
    try:
        return _call(options)
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return STOPPED
    except ValidationError as error:
        return _refused(describe_problems(error.errors()))
    except OSError as error:
        return _refused(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except httpx.HTTPError as error:
        return _refused(f"the server does not answer: {error}")
    except (ServiceError, PortTaken) as error:
        return _refused(str(error))
    except REFUSALS as error:
        return _refused(str(error))


def _call(options: argparse.Namespace) -> int:
    match options.command:
        case "serve":
            settings = _settings(options, host=options.host, port=options.port)
            return serve(settings, options.folders, browser=options.open)
        case "search":
            return search(_settings(options), options.sketch, search_query(options), as_json=options.as_json)
        case "explain":
            return explain(_settings(options), options.sketch, options.photos, options.output)
        case "figures":
            return draw_figures(_settings(options), options.sketches, options.training, options.output)
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
                as_json=options.as_json,
            )
        case "demo":
            return demo(_settings(options, port=options.port), options.folder, options.photos)
        case "openapi":
            return write_document(options.output)
        case unknown:
            raise NotImplementedError(unknown)


def _settings(options: argparse.Namespace, **further: Any) -> Settings:
    """The settings of the environment, but for those that the command line names; None: it does not name it."""
    named = {"index": options.index, "weights": options.weights, "device": options.device, **further}
    return Settings(**{name: value for name, value in named.items() if value is not None})


def _refused(sentence: str) -> int:
    print(f"{PROGRAM}: {sentence}", file=sys.stderr)
    return BAD_INPUT
