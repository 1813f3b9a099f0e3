"""HTTP/1.1 as clients speak it here: kept alive, with a length, one request after the other, on one event loop.

Standard library alone, and little of it: what is measured is who asks.
"""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, cast

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")

Reply = Callable[..., None]
"""`reply(answer, status=200)`: once for each request, now or later."""
Answer = Callable[[str, str, bytes, Reply], None]
"""Called with method, path, body and how to reply."""


class _Connection(asyncio.Protocol):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(rest) < (size := int(length[1]) if length else 0):
            return
        self._received = rest[size:]
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        self._answer(method, path, rest[:size], self._reply)

    def _reply(self, said: Any, status: int = 200) -> None:
        body = json.dumps(said).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        if not self._transport.is_closing():
            self._transport.write(head.encode() + body)


async def serve(port: int, answer: Answer, ready: Callable[[], object] = lambda: None) -> None:
    """Serve on loopback until the process is told to end; `ready` is called once it listens."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answer), "127.0.0.1", port, backlog=512)
    ready()
    await server.serve_forever()
