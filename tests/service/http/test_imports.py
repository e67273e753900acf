"""The server takes no more of the model than it needs to search."""

from __future__ import annotations

import subprocess
import sys


def test_the_server_loads_neither_training_nor_evaluation() -> None:
    code = (
        "import sys, service.http.app, service.http; "
        "print([name for name in sys.modules if name.startswith(('model.training', 'model.evaluation'))])"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "[]"
