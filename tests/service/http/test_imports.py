"""The server takes no more of the model than it needs to search."""

from __future__ import annotations

from tests.programs import run_python


def test_the_server_loads_neither_training_nor_evaluation_nor_what_only_they_need() -> None:
    code = (
        "import sys, service.http.app, service.http; unneeded = {'model.training', 'model.evaluation', 'timm', "
        "'torchvision', 'torch._dynamo', 'sklearn'}; print(sorted(unneeded & set(sys.modules)))"
    )
    done = run_python("-c", code)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
