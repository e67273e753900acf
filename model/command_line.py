"""Builds the command lines of all packages with click: groups of commands, types of arguments, and ``run``."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem, shell_complete

from sketch_search.model.errors import UserError
from sketch_search.model.terminal import HomeUnknown, expand_home, installed_version, run_program

F = TypeVar("F", bound=Callable[..., Any])


def run(command: click.Command, arguments: Sequence[str] | None, prog: str) -> int:
    """Runs a command line, and returns its exit code. arguments: None for those of this process.

    If a shell asks for it by the variable ``_PROG_COMPLETE``, prints what completes the line instead.
    """
    variable = f"_{prog.replace('-', '_').upper()}_COMPLETE"
    if instruction := os.environ.get(variable):
        return shell_complete(command, {}, prog, variable, instruction)

    def work() -> int:
        try:
            with command.make_context(prog, list(sys.argv[1:] if arguments is None else arguments)) as context:
                return command.invoke(context) or 0
        except click.exceptions.Exit as ended:
            return ended.exit_code
        except click.UsageError as error:
            path = prog if error.ctx is None else error.ctx.command_path
            problem = error.format_message().replace("\n\t", " ").rstrip(".")
            raise UserError(f"{problem}. `{path} --help` lists the options.") from None

    return run_program(work)


class CommandGroup(click.Group):
    """Commands that ``load`` imports when one or their list is needed; ``default`` names the one without a name."""

    def __init__(
        self,
        name: str | None = None,
        *,
        load: Callable[[], Iterable[click.Command]],
        default: str | None = None,
        **settings: Any,
    ) -> None:
        context = {"help_option_names": ["-h", "--help"], "ignore_unknown_options": default is not None}
        super().__init__(
            name,
            context_settings=context,
            invoke_without_command=default is not None,
            no_args_is_help=False,
            **settings,
        )
        self.load, self.default = load, default
        self.params.append(_VERSION)

    def list_commands(self, ctx: click.Context) -> list[str]:
        self.commands = self.commands or {str(command.name): command for command in self.load()}
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        self.list_commands(ctx)
        return self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.default is not None and self.get_command(ctx, args[0]) is None:
            args = [self.default, *args]
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return super().shell_complete(ctx, incomplete) or [CompletionItem(incomplete, type="file")]

    def invoke(self, ctx: click.Context) -> Any:
        done = super().invoke(ctx)
        command = self.get_command(ctx, self.default or "")
        if command is None or ctx.invoked_subcommand is not None:
            return done
        with command.make_context(self.default, [], parent=ctx) as context_of_default:
            return command.invoke(context_of_default)


def _print_version(ctx: click.Context, _: click.Parameter, is_set: bool) -> None:
    if is_set:
        print(f"sketch-search {installed_version()}")
        ctx.exit()


_VERSION = click.Option(
    ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show the version."
)


def option(spelling: str, help: str, kind: Any = str, **settings: Any) -> Callable[[F], F]:
    """Declares an option as help shows it: ``--out DIR`` has a value of type ``kind``, and ``--resume`` is a flag."""
    names = [word for word in spelling.split() if word.startswith("-")]
    value = spelling.removeprefix(" ".join(names)).strip()
    parameter = [settings.pop("name")] if "name" in settings else []
    what = {"type": kind, "metavar": value} if value else {"is_flag": True}
    return click.option(*names, *parameter, help=help, **what, **settings)


def inherit(name: str, variable: str = "") -> Callable[[], Any]:
    """Makes the default of an option that may also stand before the command: its value there, or a variable's."""
    return lambda: click.get_current_context().find_root().params.get(name) or os.environ.get(variable) or None


def examples(*lines: str) -> str:
    """Returns the end of a help text, with these lines unwrapped."""
    return "\n".join(["\b", "examples:", *(f"  {line}" for line in lines)])


class _Named(click.ParamType):  # type: ignore[type-arg]
    """What may be the path of a file, which shells complete, or something else."""

    name = "path"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class _Path(_Named):
    """A path. Raises BadParameter if it is empty (that would mean the current folder) or has an unknown home."""

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not str(value):
            raise click.BadParameter("a path is empty; write . for the current folder")
        try:
            path = expand_home(value)
        except HomeUnknown as error:
            raise click.BadParameter(str(error)) from error
        # A path ./~name has become ~name, which would be read as a home folder.
        return path.absolute() if path.parts[:1] and path.parts[0].startswith("~") else path


class _Folder(_Named):
    """A folder of photos: a URL, or a path."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        return value if "://" in value else a_path.convert(value, param, ctx)


a_name, a_path, a_folder = _Named(), _Path(), _Folder()
