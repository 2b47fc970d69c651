"""`python -m spatial_functa_pipeline.studies.child MODULE …`: `python -m MODULE …`, ended with the process that started it.

A process that is killed takes nobody along: what it has started would go on, and be in the way of the next one.
"""

import os
import runpy
import signal
import sys
import threading
import time

_SECONDS = 1.0


def end_with_parent() -> None:
    """From now on, send this process SIGTERM once its parent is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
