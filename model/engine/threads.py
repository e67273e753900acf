"""Sets the number of computing threads, for ONNX Runtime and, if in use, for PyTorch."""

import os
import sys


def threads() -> int:
    """Returns how many threads may compute: OMP_NUM_THREADS if it is set, else the cores of this machine."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    return int(named) if named.isdigit() and int(named) else os.cpu_count() or 1


def set_threads(count: int | None) -> None:
    """Sets the threads of this process and its children, before a checkpoint is loaded; None changes nothing."""
    if count is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(count)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)
