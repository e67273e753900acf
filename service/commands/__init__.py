"""The program `sketch-search`, also run by `python -m service`. ``application`` declares its commands."""

import atexit
import gc
import os
import sys
import threading

from sketch_search.service.commands.application import application, main


def program() -> None:
    """Runs the program in this process, and ends the process. It starts and ends sooner than Python does by default."""
    # pydantic would look for plugins in every installed package, and Python for garbage in all that imports make.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(50_000)
    code = main()
    if threading.active_count() == 1:
        # Otherwise Python frees all memory first, which takes a tenth of the time of a search.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
