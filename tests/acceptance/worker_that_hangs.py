"""The callback worker, whose loop hangs once it is told so by SIGWINCH."""

import signal
import time
from typing import Any

from celery import signals

from shared.celery_app import run, worker_app


def _hang(*_: object) -> None:
    time.sleep(600)


def _be_ready_to_hang(**_: Any) -> None:
    # Python runs a handler in the main thread, which is the loop's.
    signal.signal(signal.SIGWINCH, _hang)


signals.worker_ready.connect(_be_ready_to_hang, weak=False)
run(worker_app("callback"), [])
