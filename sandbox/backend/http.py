"""How the backend says no: a base view, one exception, and the five shapes of an error body.

`{error, detail}`, `{field: [msgs]}`, `{status: "error", message}`, `{success: false, error}`, and
HTML or nothing. Which view answers which is a fact of the recordings; here is only the mechanism.
"""

from __future__ import annotations

import logging
from typing import Any

from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from sandbox.backend.models import Workflow
from sandbox.backend.tenancy import Tenant, as_uuid

log = logging.getLogger("sandbox.backend")


class RefusedError(Exception):
    """A request is refused: the status and the body as they go out."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body
        self.headers = headers or {}


def refuse(status: int, message: str, **more: Any) -> RefusedError:
    """The commonest shape, `{error, ...}`."""
    return RefusedError(status, {"error": message, **more})


def workflow_of(tenant: Tenant, identifier: Any, message: str = "Workflow not found") -> Workflow:
    """The organization's workflow of that id; a refusal with 404 and that message if it has none."""
    row: Workflow | None = tenant.workflows().filter(pk=as_uuid(identifier)).first()
    if row is None:
        raise refuse(404, message)
    return row


def standard_errors(error: Exception, _context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: `{type, errors: [{code, detail, attr}]}`, or None for an error that is not DRF's."""
    if not isinstance(error, APIException):
        return None
    code = error.default_code if not isinstance(error, ValidationError) else "invalid"
    detail = error.detail[0] if isinstance(error.detail, list) else error.detail
    kind = "validation_error" if isinstance(error, ValidationError) else "client_error"
    body = {"type": kind, "errors": [{"code": code, "detail": str(detail), "attr": None}]}
    return Response(body, status=error.status_code)


class InternalView(APIView):  # type: ignore[misc]
    """A view of the internal API. DRF catches what a handler raises; `failure` says how it is answered.

    A text is the `error` of a 500 that tells the detail, a mapping is the whole body of one. With None the error
    passes on, and becomes a page of text. `failure_of_api`: whether DRF's own errors (bad JSON, unsupported type)
    are failures too.
    """

    failure: str | dict[str, Any] | None = None
    failure_of_api = True

    @property
    def tenant(self) -> Tenant:
        """Whose request it is; set by the middleware."""
        tenant: Tenant = self.request.tenant
        return tenant

    def handle_exception(self, exc: Exception) -> Response:
        """The one place where an exception becomes an answer."""
        answer = self._answer(exc)
        if answer is None:
            return super().handle_exception(exc)
        log.warning("refused %s %s: %s %s", self.request.method, self.request.path, answer.status_code, exc)
        return answer

    def _answer(self, exc: Exception) -> Response | None:
        if isinstance(exc, RefusedError):
            return Response(exc.body, status=exc.status, headers=exc.headers)
        if isinstance(exc, ValidationError) and isinstance(exc.detail, dict):
            return Response(exc.detail, status=400)
        if self.failure is None or (isinstance(exc, APIException) and not self.failure_of_api):
            return None
        body = {"error": self.failure, "detail": str(exc)} if isinstance(self.failure, str) else self.failure
        return Response(body, status=500)


def body_of(request: Request) -> dict[str, Any]:
    """The request's JSON object (or form) as a plain dict; DRF's ParseError when it is not JSON."""
    data = request.data
    return data.dict() if hasattr(data, "dict") else dict(data)


INTERNAL_ERROR: dict[str, Any] = {"error": "Internal server error"}
INTERNAL_ERROR_MESSAGE: dict[str, Any] = {"status": "error", "message": "Internal server error"}
