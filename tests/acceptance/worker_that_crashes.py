"""A worker in whose process everybody says something once it consumes, and which crashes when it was told to stop."""

import logging
import sys
import threading
import warnings
from typing import Any

from celery import signals

from shared.celery_app import run, worker_app
from shared.logging_utils import get_logger

LOGGERS = ("celery.worker", "kombu.connection", "amqp", "redis.client", "httpx", "httpcore", "urllib3", "somebody")
SAID = "cannot connect to amqp://user:hunter2@host//, password=hunter2"


class Broken:
    def __del__(self) -> None:
        raise RuntimeError(SAID)


def crash() -> None:
    raise RuntimeError(SAID)


def say(**_: Any) -> None:
    for name in LOGGERS:
        logging.getLogger(name).error(SAID)
    try:
        crash()
    except RuntimeError:
        logging.getLogger("somebody").exception("failed")
    warnings.warn(SAID, stacklevel=1)
    thread = threading.Thread(target=crash, name="the-thread")
    thread.start()
    thread.join()
    broken = Broken()
    del broken
    get_logger("ours").info("content_shown", payload={"text": "hunter2"}, text="hunter2", token="hunter2")
    get_logger("ours").info("said_it_all")


if __name__ == "__main__":
    app = worker_app(sys.argv[1])
    signals.worker_ready.connect(say, weak=False)
    try:
        run(app, sys.argv[2:])
    finally:
        crash()
