"""Somebody who wants to hear of executions: takes webhooks, counts them, and can be told to be slow or rude.

What was taken is kept in the database, as every effect that must happen once: it is seen after a restart too.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from typing import Any

from django.db.models import Count, F, Q
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend.http import InternalView, body_of, refuse
from sandbox.backend.models import Hook, HookDelivery
from sandbox.backend.stats import stats

_LONGEST_DELAY = 60.0
_SWITCHES = {"status": int, "delay_seconds": float, "location": str, "retry_after": str, "failures": int}


class Receive(InternalView):
    """POST `/sandbox/hooks/{name}/`: open, as the world's webhooks are. PUT: switch its answer, with the key."""

    def post(self, request: Request, name: str) -> HttpResponse:
        body = request.body.decode("utf-8", "replace")  # as it is: a receiver looks at the bytes
        hook, _ = Hook.objects.get_or_create(name=name)
        failing = hook.failures is None or _fail_once(name)
        status = hook.status if failing else 200
        row = HookDelivery(name=name, method=request.method, status=status, body=body)
        row.headers = dict(request.headers)
        row.key = request.headers.get("Idempotency-Key", "")[:255]
        row.save()
        time.sleep(min(hook.delay_seconds, _LONGEST_DELAY))
        named = {"Location": hook.location, "Retry-After": hook.retry_after}
        return HttpResponse(status=status, headers={header: value for header, value in named.items() if value})

    def put(self, request: Request, name: str) -> Response:
        body = body_of(request)
        unknown = sorted(body.keys() - _SWITCHES.keys())
        if unknown:
            raise refuse(400, f"unknown: {', '.join(unknown)}; known are {', '.join(_SWITCHES)}")
        values = {field: None if value is None else _SWITCHES[field](value) for field, value in body.items()}
        Hook.objects.update_or_create(name=name, defaults=values)
        return Response({"name": name, **values})


def _fail_once(name: str) -> bool:
    """Whether one of the failures that a hook was told to begin with is left; takes it."""
    return bool(Hook.objects.filter(name=name, failures__gt=0).update(failures=F("failures") - 1))


class Received(InternalView):
    """GET `/sandbox/hooks/`: by name, `{deliveries, keys, executions: {id: distinct keys}, received: [...]}`."""

    def get(self, _request: Request) -> Response:
        found: dict[str, list[HookDelivery]] = defaultdict(list)
        for row in _rows().order_by("pk"):
            found[row.name].append(row)
        return Response({name: _account(rows) for name, rows in found.items()})


def _account(rows: list[HookDelivery]) -> dict[str, Any]:
    keys: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for execution_id in _executions(row.body):
            keys[execution_id].add(row.key)
    fields = ("method", "status", "headers", "body", "key")
    return {
        "deliveries": len(rows),
        "keys": len({row.key for row in rows}),
        "executions": {execution_id: len(found) for execution_id, found in keys.items()},
        "received": [{field: getattr(row, field) for field in fields} for row in rows],
    }


def _executions(body: str) -> set[str]:
    try:
        said = json.loads(body)
    except ValueError:
        return set()
    events = said.get("notifications", [said]) if isinstance(said, dict) else []
    return {str(event["execution_id"]) for event in events if isinstance(event, dict) and event.get("execution_id")}


def counts() -> dict[str, int]:
    """`{deliveries, keys, repeated}`: all that came, distinct keys by receiver, and what was taken (2xx) once more."""
    taken = Q(status__gte=200, status__lt=300)
    by_key = _rows().values("name", "key").annotate(came=Count("pk"), taken=Count("pk", filter=taken))
    return {
        "deliveries": sum(row["came"] for row in by_key),
        "keys": len(by_key),
        "repeated": sum(max(0, row["taken"] - 1) for row in by_key),
    }


def _rows() -> Any:
    return HookDelivery.objects.filter(at__gte=stats.since) if stats.since else HookDelivery.objects.all()
