"""The program in which documents are read: `python -m sandbox.backend.tools.child`.

One JSON line in, `{"path", "mime_type", "page"}`, one JSON line out, `{"result"}` or `{"error"}`; the end of its input
ends it. A page of null is the whole document. It knows neither Django nor any key: what it reads comes from strangers.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from sandbox.backend.tools.pages import analyse
from sandbox.extraction.document import ExtractionError
from sandbox.extraction.tool import extract

MEMORY_LIMIT = 2 * 1024**3


def main() -> None:
    """Serve requests until the parent is gone."""
    # Ctrl-C in the server's terminal is the server's business; its end ends this program too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a library prints must not end up among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with suppress(ValueError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin, requests), daemon=True).start()
    while True:
        request = json.loads(requests.get())
        print(json.dumps(_run(request)), file=answers, flush=True)


def _read(stream: IO[str], requests: queue.SimpleQueue[str]) -> None:
    """A thread of its own, so that the end of the parent is seen in the middle of a document."""
    for line in stream:
        requests.put(line)
    os._exit(0)


def _run(request: dict[str, Any]) -> dict[str, Any]:
    path, mime_type, page = Path(request["path"]), request["mime_type"], request["page"]
    try:
        return {"result": extract(path, mime_type) if page is None else analyse(path, mime_type, page)}
    except ExtractionError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "the document needs more memory than one document may have"}


if __name__ == "__main__":
    main()
