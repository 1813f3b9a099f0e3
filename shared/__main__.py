"""`python -m shared PROFILE [celery worker options]`: one process that holds that profile's workers."""

import sys

from shared.celery_app import run, worker_app

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m shared PROFILE [celery worker options]")
    run(worker_app(sys.argv[1]), sys.argv[2:])
