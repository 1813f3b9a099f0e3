"""`python -m shared.probe PROFILE [PAGE]`: ask the process beside this one for a page of its health, as containers do.

PROFILE may also be `beat` or `monitor`; PAGE is `/livez` unless told. Exits 1 if the answer is not 200. It is started
every few seconds for as long as a container lives, so it imports next to nothing and speaks HTTP itself.
"""

import socket
import sys

from config.workers import BEAT_HEALTH_PORT, MONITOR_HEALTH_PORT, profile_named
from shared.overrides import health_port, overridden
from shared.variables import SettingsError

_PATIENCE_SECONDS = 5.0  # /readyz may take four of them
_MOST_BYTES = 10_000
_OTHERS = {"beat": BEAT_HEALTH_PORT, "monitor": MONITOR_HEALTH_PORT}


def port_of(name: str) -> int:
    """Where that profile, beat or the monitor answers, by the environment that it was given too.

    Raises:
        ValueError: there is none of that name, or its health server is switched off.
        SettingsError: its environment is wrong.
    """
    found = health_port(name, _OTHERS[name]) if name in _OTHERS else overridden(profile_named(name)).health_port
    if not found:
        raise ValueError("it has no health server, since its HEALTH_PORT is 0")
    return found


def asked(port: int, page: str) -> tuple[int, str]:
    """The status of that page on this machine, and what it says.

    Raises:
        OSError: nobody answers in time.
    """
    with socket.create_connection(("127.0.0.1", port), _PATIENCE_SECONDS) as connection:
        connection.sendall(f"GET {page} HTTP/1.0\r\n\r\n".encode())
        head, _, body = connection.makefile("rb").read(_MOST_BYTES).partition(b"\r\n\r\n")
    return int(head.partition(b" ")[2][:3] or 0), body.decode(errors="replace").strip()


def main(name: str, page: str = "/livez") -> None:
    """Exit with 0 if that page says that all is well, else with 1 and the reason."""
    try:
        status, said = asked(port_of(name), page)
    except (ValueError, SettingsError, OSError) as error:
        sys.exit(f"{name}: {error}")
    if status != 200:
        sys.exit(f"{name}: {page} answers {status or 'nothing'}: {said}")


if __name__ == "__main__":
    main(*sys.argv[1:])
