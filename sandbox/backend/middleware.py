"""The one middleware: authentication, the tenant, slashes, unhandled errors and the request counters.

Everything under `/internal/` and `/sandbox/` needs the internal key, but for `/sandbox/health` and for what posts to
`/sandbox/hooks/`. What the real backend answers with a page (an unhandled exception, a POST without its slash), this
one does too: the workers must be able to read such an answer.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect, JsonResponse
from django.urls import is_valid_path

from sandbox.backend.http import log
from sandbox.backend.stats import stats
from sandbox.backend.tenancy import Tenant

_PARAMETER = re.compile(r"<[^>]+>")


class BackendMiddleware:
    """Django calls it once per request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._key = settings.SANDBOX.api_key.encode()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        internal = request.path_info.startswith("/internal/")
        response = self._before(request, internal) or self._get_response(request)
        if internal:
            stats.request(_label(request))
            stats.status(response.status_code)
        return response

    def _before(self, request: HttpRequest, internal: bool) -> HttpResponse | None:
        guarded = internal or request.path_info.startswith("/sandbox/")
        if guarded and not _is_open(request):
            refused = self._authenticate(request)
            if refused is not None:
                return refused
        request.tenant = Tenant(request.headers.get("X-Organization-ID"))
        return _missing_slash(request)

    def _authenticate(self, request: HttpRequest) -> HttpResponse | None:
        header: str = request.headers.get("Authorization", "")
        if not header:
            body = {
                "error": "Authorization header required for internal APIs",
                "detail": "Missing Authorization header",
            }
        elif not header.startswith("Bearer "):
            body = {
                "error": "Invalid authorization format for internal APIs",
                "detail": "Use: Authorization: Bearer <key>",
            }
        elif not hmac.compare_digest(header.removeprefix("Bearer ").encode(), self._key):
            body = {
                "error": "Invalid internal service API key",
                "detail": "API key does not match configured value",
            }
        else:
            return None
        log.warning("refused %s %s: 401 %s", request.method, request.path, body["detail"])
        return JsonResponse(body, status=401)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        """Django's own report of an unhandled exception, as it is sent to a client that is no browser."""
        log.error("unhandled on %s %s", request.method, request.path, exc_info=error)
        return _report(request, type(error).__name__, str(error))


def _is_open(request: HttpRequest) -> bool:
    """For whoever waits for the start, and for webhooks, which bring keys of their own."""
    hook = request.method == "POST" and request.path_info.startswith("/sandbox/hooks/")
    return hook or request.path_info == "/sandbox/health"


def _report(request: HttpRequest, kind: str, message: str) -> HttpResponse:
    lines = [
        f"{kind} at {request.path}",
        message,
        "",
        f"Request Method: {request.method}",
        f"Request URL: {request.build_absolute_uri()}",
    ]
    return HttpResponse("\n".join(lines), status=500, content_type="text/plain; charset=utf-8")


def _missing_slash(request: HttpRequest) -> HttpResponse | None:
    path = request.path_info
    if path.endswith("/") or is_valid_path(path) or not is_valid_path(f"{path}/"):
        return None
    if request.method in {"GET", "HEAD"}:
        query = request.META.get("QUERY_STRING", "")
        return HttpResponsePermanentRedirect(f"{path}/" + (f"?{query}" if query else ""))
    message = f"You called this URL via {request.method}, but the URL doesn't end in a slash."
    log.warning("refused %s %s: no trailing slash", request.method, path)
    return _report(request, "RuntimeError", message)


def _label(request: HttpRequest) -> str:
    """`GET v1/file-execution/{id}/`: the route and not the path, so that requests can be added up."""
    match = request.resolver_match
    route = _PARAMETER.sub("{id}", match.route) if match else "(no route)"
    return f"{request.method} {route.removeprefix('internal/')}"
