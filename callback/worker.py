"""The callback worker: `python -m worker` in this folder, or `celery -A worker worker`."""

import sys

from shared.celery_app import run, worker_app

app = worker_app("callback")

if __name__ == "__main__":
    run(app, sys.argv[1:])
