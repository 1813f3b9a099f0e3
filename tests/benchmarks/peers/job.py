"""What every system does for a file and for a job, and where: shared, so that only the systems differ.

Standard library alone: each environment of pyproject.toml imports it.
"""

import os

CONCURRENCY = 16

# Which servers: URLs. The broker is a Redis or a RabbitMQ, the store always a Redis.
BROKER_URL = os.environ["PEER_BROKER_URL"]
STORE_URL = os.environ["PEER_STORE_URL"]
SERVER_URL = os.environ["PEER_SERVER_URL"]
QUEUE = os.environ["PEER_QUEUE"]
# After how many seconds without a sign of life the work of a worker is another's; 0: the project's own default.
LIMIT_SECONDS = int(os.environ.get("PEER_LIMIT_SECONDS", "0"))

STEPS = ("/create", "/execute", "/status")
DONE = "/done"
HTTP_TIMEOUT_SECONDS = 30.0
RETRIES = 5
_FILLING = "x" * 200


def file_body(job: str, file: int) -> dict[str, object]:
    """About 300 bytes as JSON, as our own requests for a file have."""
    return {"job": job, "file": file, "file_name": f"note-{file}.txt", "status": "EXECUTING", "metadata": _FILLING}


def job_body(job: str) -> dict[str, object]:
    """About 300 bytes as JSON."""
    return {"job": job, "status": "COMPLETED", "metadata": _FILLING}
