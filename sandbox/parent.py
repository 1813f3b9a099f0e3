"""Ending with whoever started us."""

import os
import signal
import threading
import time
from types import FrameType
from typing import NoReturn

_LOOK_SECONDS = 0.2


def end_with_parent() -> None:
    """Leave as on Ctrl-C when told to end, and when whoever started us is gone: a killed launcher tells nobody."""

    def leave(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
