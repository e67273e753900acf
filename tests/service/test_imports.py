import os

import pytest

from tests.programs import run_python

NETWORKS = {"torch", "onnxruntime", "faiss", "sketch_search.model.matcher", "sketch_search.model.training.network"}
OF_SERVERS = {"sketch_search.service.schemas.explain", "fastapi"}
# Runs command lines one after the other, whatever becomes of each.
COMMANDS = """
from sketch_search.service.commands import main
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
            "import sketch_search.service.http.app",
            {
                "sketch_search.model.training.papers",
                "sketch_search.model.training.evaluation",
                "sketch_search.model.training.network",
                "timm",
                "torch",
                "sklearn",
            },
        ),
        ("import sketch_search.indexer.building.builder", {"s3fs", "sshfs", "httpx", "asyncssh", "botocore"}),
        ("import sketch_search; sketch_search.Remote", NETWORKS | {"timm", "scipy", "fastapi"}),
        ("import sketch_search.service.engine", {"faiss", "sketch_search.service.explain", *OF_SERVERS}),
        (COMMANDS.format(ANSWERED_AT_ONCE), NETWORKS | {"fastapi"}),
    ],
    ids=["the server", "a build without a URL", "a program that asks a server", "a search", "help and a slip"],
)
def test_unneeded_modules_are_not_loaded(code: str, unneeded: set[str]) -> None:
    done = run_python("-c", f"{code}\nimport sys\nprint(sorted({unneeded} & set(sys.modules)))")
    assert (done.stdout.splitlines()[-1], done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize(
    ("program", "variable", "value"),
    [
        ("import sketch_search.gallery", "OPENBLAS_THREAD_TIMEOUT", "4"),
        (COMMANDS.format(("serve",)), "OPENBLAS_NUM_THREADS", "1"),
        (COMMANDS.format(("index build .",)), "OPENBLAS_NUM_THREADS", "1"),
    ],
    ids=["a program", "the server", "a build"],
)
def test_threads_of_numpy_do_not_spin_beside_those_of_the_networks(program: str, variable: str, value: str) -> None:
    code = f"""
import os, sys
class Watched:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print(os.environ.get("{variable}"))
            sys.exit()
sys.meta_path.insert(0, Watched())
{program}
"""
    # What these tests have imported may have set it for their own process.
    inherited = {name: held for name, held in os.environ.items() if name != variable}
    assert run_python("-c", code, environment=inherited).stdout == f"{value}\n"
