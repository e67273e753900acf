"""Declares the commands of `sketch-search`. They import their code when they run, so that help appears at once."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sketch_search.indexer.commands import index
from sketch_search.model.command_line import CommandGroup, a_folder, a_name, a_path, examples, inherit, option, run
from sketch_search.model.commands import model
from sketch_search.model.errors import UserError
from sketch_search.model.files import write_files
from sketch_search.model.terminal import printable
from sketch_search.service import PROGRAM

if TYPE_CHECKING:
    from sketch_search.service.schemas.query import PictureKind
    from sketch_search.service.settings import Settings

_INDEX = functools.partial(option, "--index DIR", "Folder of the index (in the platform's data folder).", a_path)
_WEIGHTS = functools.partial(option, "--weights FILE", "Checkpoint, a safetensors file (the embedded one).", a_path)
_DEVICE = functools.partial(option, "--device NAME", "auto, cpu or cuda (auto).", click.Choice(("auto", "cpu", "cuda")))
_PORT = option("--port N", "Port to listen on (8000); 0 takes any free one.", int)
# The options that name photos, by path or id; and what values are called that do not have the name of the option.
_PHOTOS = ("like", "unlike", "unlike_kind")
_VALUES = {
    **dict.fromkeys(_PHOTOS, "PHOTO"),
    **dict.fromkeys(("k", "offset", "nprobe"), "N"),
    **dict.fromkeys(("text", "thing_text"), "WORD"),
    **dict.fromkeys(("after", "before"), "DAY"),
    "fold": "yes|no",
}
_EPILOG = f"""{
    examples(
        "sketch-search ~/Pictures --open      index it, serve it, open the page",
        "sketch-search --port 8080            serve the existing index",
        "sketch-search search cat.png --k 5   search without the page",
        "sketch-search index add ~/More       add a folder to the index",
    )
}

`sketch-search serve --help` lists further options, such as --port and --open.
If a folder has the name of a command, write its path: ./search. Every setting is also an environment variable:
SKETCH_SEARCH_HOST, SKETCH_SEARCH_PORT, SKETCH_SEARCH_INDEX and so on."""


class _Application(CommandGroup):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ValueError as error:
            from pydantic import ValidationError

            from sketch_search.service.errors import describe_problems

            if isinstance(error, ValidationError):
                raise UserError(describe_problems(error.errors())) from error
            raise


def _commands() -> Iterable[click.Command]:
    return (serve, search, explain, index, model, demo, openapi)


@click.group(
    cls=_Application, load=_commands, default="serve", subcommand_metavar="[FOLDER ...] | COMMAND ...", epilog=_EPILOG
)
@_INDEX()
@_WEIGHTS()
@_DEVICE()
@click.pass_context
def application(context: click.Context, /, **options: Any) -> None:
    """Draw something, find the photos of it. FOLDERs are served while they are indexed."""
    if context.invoked_subcommand == "model" and any(options.values()):
        raise click.UsageError("write the options for model after its name.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, and returns the exit code. arguments: None for those of this process."""
    return run(application, arguments, PROGRAM)


def _with_settings(*further: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turns options into settings: the ``further`` ones, and those that may also stand before the command."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        @_INDEX(default=inherit("index"))
        @_WEIGHTS(default=inherit("weights"))
        @_DEVICE(default=inherit("device"))
        @functools.wraps(command)
        def called(**options: Any) -> Any:
            overrides = {name: options.pop(name) for name in ("index", "weights", "device", *further)}
            return command(_settings(**overrides), **options)

        return called

    return decorated


def _settings(**overrides: Any) -> Settings:
    """Returns the settings of the environment, overridden by the given ones. Raises pydantic's ValidationError."""
    from sketch_search.service.settings import Settings

    settings = Settings(**{name: value for name, value in overrides.items() if value not in (None, ())})
    if settings.threads is not None:
        from sketch_search.model.engine import set_threads

        # For the whole process, so that no library decides for itself.
        set_threads(settings.threads)
    return settings


@click.command(epilog=examples("sketch-search ~/Pictures --open", "sketch-search serve --port 8080"))
@click.argument("folders", type=a_folder, nargs=-1, metavar="[FOLDER]...")
@option("--ray ADDRESS", "Search shards by this Ray cluster: auto, local or HOST:PORT.")
@option("--shards DIR...", "With --ray: the shards of the index.", a_path, multiple=True)
@option("--replicas N", "With --ray: copies of each shard and of the encoder (1).", int)
@option("--open", "Open the page in a browser.", name="browser")
@option("--system NAME", "default or two-stage, as for search.")
@option("--host ADDRESS", "Address to listen on (127.0.0.1).")
@_PORT
@_with_settings("ray", "shards", "replicas", "system", "host", "port")
def serve(settings: Settings, folders: Sequence[Path | str], browser: bool) -> int:
    """Index FOLDERs, if any, and serve them (the default)."""
    # The products of a search are small. Beside other work, NumPy's threads make it take three times as long.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from sketch_search.service.commands.serve import serve

    return serve(settings, folders, browser=browser)


class _Search(click.Command):
    """Has an option for each field of a query, whose module is imported only if this command runs."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        first, *others = super().get_params(ctx)
        return [first, *_query_options(), *others]


@functools.cache
def _query_options() -> list[click.Option]:
    """Makes the options of a query. All values are strings: they are checked as in an HTTP request."""
    from sketch_search.service.schemas.query import SearchQuery

    options = []
    for name, field in SearchQuery.model_fields.items():
        # A flag says that the picture is a photo.
        if name == "kind":
            continue
        several = name in SearchQuery.repeatable()
        help = (field.description or "").partition(". ")[0].removesuffix("; may be repeated").rstrip(".")
        options.append(
            click.Option(
                [f"--{name.replace('_', '-')}"],
                help=f"{help}; repeatable." if several else f"{help}.",
                metavar=_VALUES.get(name, name.upper()),
                multiple=several,
            )
        )
    return options


@click.command(cls=_Search, epilog=examples("sketch-search search - --k 10 --json < cat.png"))
@click.argument("sketches", type=a_name, nargs=-1, metavar="[SKETCH]...")
@option("--photo", "The image is a photo: find what looks like it.", str, name="kind", flag_value="photo")
@option("--json", "Print the JSON answer of POST /search.", name="as_json")
@_with_settings()
def search(settings: Settings, sketches: Sequence[str], as_json: bool, **options: Any) -> int:
    """Search once, by the server of the index if one runs here.

    SKETCH is an image file, or - for standard input; several make one drawing.
    """
    from sketch_search.service.commands.search import search
    from sketch_search.service.schemas.query import SearchQuery

    photos = {name: options.pop(name) for name in _PHOTOS}
    if not sketches and not photos["like"] and not any(options[name] for name in ("text", "folder", "after", "before")):
        raise click.UsageError("Missing argument 'SKETCH', or --like PHOTO, or --text WORD, or a filter.")
    query = SearchQuery.model_validate({name: value for name, value in options.items() if value not in (None, ())})
    return search(settings, sketches, query, photos, as_json=as_json)


@click.command(
    epilog=examples(
        "sketch-search explain cat.png -o why",
        "sketch-search explain cat.png a.jpg b.jpg -o why",
        "sketch-search explain house.png --thing tree.png -o why",
        "sketch-search explain a.jpg b.jpg --like cats/3.jpg -o why",
    )
)
@click.argument("pictures", type=a_name, nargs=-1, metavar="[SKETCH] [PHOTO]...")
@option("--like PHOTO", "Explain why they are like this photo of the index: path or id.")
@option("--photo", "The image is a photo: explain why they are like it.", str, name="kind", flag_value="photo")
@option("--thing SKETCH", "A further thing of the drawing, of the same size; repeatable.", a_path, multiple=True)
@option("-o --output DIR", "Folder for the files.", a_path, required=True)
@_with_settings()
def explain(
    settings: Settings,
    pictures: Sequence[str],
    like: str | None,
    kind: PictureKind | None,
    thing: Sequence[Path],
    output: Path,
) -> int:
    """Explain why photos match a sketch or a photo, as pictures and JSON.

    A PHOTO is the path or id of one in the index; by default, the best matches are explained. With --like, leave out
    SKETCH.
    """
    from sketch_search.service.commands.search import explain

    if like is not None and kind is not None:
        raise click.UsageError("--photo describes the image, but --like needs none: leave one of them out.")
    if like is None and not pictures:
        raise click.UsageError("Missing argument 'SKETCH', or --like PHOTO.")
    sketches = [] if like is not None else [a_path(pictures[0])]
    photos = pictures[len(sketches) :]
    return explain(settings, [*sketches, *thing], photos, output, like=like, kind=kind or "sketch")


@click.command(epilog=examples("sketch-search demo try-it", "sketch-search demo try-it --photos ~/Pictures"))
@click.argument("folder", type=a_path, metavar="DIR")
@option("--photos FOLDER", "Photos to index instead of the sample gallery.", a_path)
@option("--system NAME", "default, or two-stage: the two-stage report's.", click.Choice(("default", "two-stage")))
@_PORT
@_WEIGHTS(default=inherit("weights"))
def demo(folder: Path, photos: Path | None, system: str | None, port: int | None, weights: Path | None) -> int:
    """Index a sample gallery, serve it, and search it once.

    The gallery and its index are kept in DIR.
    """
    from sketch_search.service.commands.serve import demo

    return demo(_settings(weights=weights, port=port, system=system), folder, photos)


@click.command(epilog=examples("sketch-search openapi --output api.json"))
@option("--output FILE", "File to write to (standard output).", a_path)
def openapi(output: Path | None) -> None:
    """Print the OpenAPI document of the HTTP API."""
    from sketch_search.service.http import create_app
    from sketch_search.service.settings import Settings

    # The defaults, whatever the environment says.
    text = json.dumps(create_app(Settings.model_construct()).openapi(), indent=2)
    if output is None:
        print(text)
    else:
        write_files({output: f"{text}\n".encode()})
        print(printable(str(output)))
