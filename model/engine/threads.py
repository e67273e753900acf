"""Names the kind of processor, and sets the number of computing threads of ONNX Runtime and, if in use, PyTorch."""

import os
import sys
from pathlib import Path

# The flags of Linux by which ONNX Runtime chooses how it multiplies whole numbers, the best first.
_PROCESSORS = {"avx512_vnni": "VNNI", "avx_vnni": "VNNI", "avx512f": "AVX512", "avx2": "AVX2"}


def processor() -> str:
    """Returns the kind of processor: "VNNI", "AVX512", "AVX2", or "other", also where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return "other"
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return next((kind for flag, kind in _PROCESSORS.items() if flag in flags), "other")


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
