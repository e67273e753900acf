"""The server takes no more of the model than it needs to search."""

from __future__ import annotations

from tests.programs import run_python


def test_the_server_loads_neither_training_nor_evaluation() -> None:
    code = (
        "import sys, service.http.app, service.http; "
        "print([name for name in sys.modules if name.startswith(('model.training', 'model.evaluation'))])"
    )
    done = run_python("-c", code)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
