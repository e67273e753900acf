from __future__ import annotations

import pytest

from tests.programs import run_python

NETWORKS = {"torch", "onnxruntime", "faiss", "model.matcher", "model.network"}
# Runs command lines one after the other, whatever becomes of each.
COMMANDS = """
from service.commands import main
for command in {}:
    main(command.split())
"""
ANSWERED_AT_ONCE = (
    "--help",
    "search --help",
    "--version",
    "index --help",
    "index build --help",
    "index --version",
    "model --help",
    "model train --help",
    "model evaluate --help",
    "model --version",
    "search nothing.png",
)


@pytest.mark.parametrize(
    ("code", "unneeded"),
    [
        (
            "import service.http.app, service.http",
            {"model.papers", "model.evaluation", "model.network", "timm", "torch", "sklearn"},
        ),
        ("import service.client", NETWORKS | {"fastapi"}),
        ("import sketch_search; sketch_search.Remote", NETWORKS | {"timm", "scipy"}),
        (COMMANDS.format(ANSWERED_AT_ONCE), NETWORKS | {"fastapi"}),
    ],
    ids=["the server", "a client", "a program that asks a server", "help, versions, and a slip"],
)
def test_what_is_not_needed_is_not_loaded(code: str, unneeded: set[str]) -> None:
    done = run_python("-c", f"{code}\nimport sys\nprint(sorted({unneeded} & set(sys.modules)))")
    assert (done.stdout.splitlines()[-1], done.returncode) == ("[]", 0), done.stderr
