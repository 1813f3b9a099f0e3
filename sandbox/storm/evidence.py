"""Gathers what the judge looks at: from the backend, the broker and the state store."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

from sandbox.driver import Driver
from sandbox.servers import rabbitmq_program
from sandbox.stack import Stack, StackError
from sandbox.storm.judge import Evidence
from sandbox.storm.traffic import document_of

_CTL_SECONDS = 30
_RESULTS = "api_results:"
_UNACKNOWLEDGED = "unacked"
# What worker processes say to each other; nobody waits for it.
_CHATTER = ("pidbox", "celeryev")


def gather(stack: Stack, driver: Driver, sent: Mapping[str, int]) -> Evidence:
    """Everything there is now."""
    stats = driver.control("GET", "stats")
    results, keys = _store(stack.redis_url)
    return Evidence(
        sent=dict(sent),
        executions=driver.control("GET", "evidence")["executions"],
        results=results,
        queues=queues(stack),
        keys=keys,
        notifications=stats["notifications"],
        webhooks=stats.get("webhooks"),
        told=_told(driver) if stats["notifications"]["enqueued"] else None,
    )


def _told(driver: Driver) -> dict[str, int]:
    """By execution, under how many keys its end was told."""
    found: dict[str, int] = driver.control("GET", "hooks/").get("storm", {}).get("executions", {})
    return found


def queues(stack: Stack) -> dict[str, int]:
    """Messages by queue, those included that a worker holds. Raises StackError where the broker cannot be asked."""
    found = _redis_queues(stack.broker_url) if stack.broker_url.startswith("redis") else _rabbitmq_queues(stack)
    return {name: count for name, count in found.items() if not any(word in name for word in _CHATTER)}


def _redis_queues(url: str) -> dict[str, int]:
    # Every list there is: kombu has one per queue and priority, made with the first message and gone with the last.
    found: dict[str, int] = {}
    with redis.Redis.from_url(url, decode_responses=True) as broker:
        for name in broker.scan_iter(_type="list"):
            found[name] = int(broker.llen(name))
        found[_UNACKNOWLEDGED] = int(broker.hlen(_UNACKNOWLEDGED))
    return found


def _rabbitmq_queues(stack: Stack) -> dict[str, int]:
    # Over AMQP nobody learns of messages that a consumer holds, nor which queues there are.
    program = Path(rabbitmq_program() or "").with_name("rabbitmqctl")
    environment: dict[str, str] = stack.parts["broker"].order["env"]
    argv = [str(program), "-q", "-n", environment["RABBITMQ_NODENAME"], "--formatter", "json"]
    ran = subprocess.run(
        [*argv, "list_queues", "name", "messages"],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=_CTL_SECONDS,
    )
    if ran.returncode:
        raise StackError(f"rabbitmqctl failed: {ran.stderr[-500:]}")
    rows: list[dict[str, Any]] = json.loads(ran.stdout)
    return {row["name"]: row["messages"] for row in rows}


def _store(url: str) -> tuple[dict[str, list[tuple[str, str]]], dict[str, int]]:
    """The pushed results by execution, and the seconds to live of every other key."""
    results: dict[str, list[tuple[str, str]]] = {}
    keys: dict[str, int] = {}
    with redis.Redis.from_url(url, decode_responses=True) as store:
        for key in store.scan_iter():
            if key.startswith(_RESULTS):
                items: list[str] = store.lrange(key, 0, -1)
                results[key.rpartition(":")[2]] = [_pushed(json.loads(item)) for item in items]
            elif not key.startswith("_kombu."):
                keys[key] = int(store.ttl(key))
    # A key that ended between the two questions.
    return results, {key: seconds for key, seconds in keys.items() if seconds != -2}


def _pushed(item: Mapping[str, Any]) -> tuple[str, str]:
    text = (item["result"] or {}).get("text", "")
    return item["file_execution_id"], document_of(text) or f"nobody: {item['error']}"
