"""Workflows, their two ends, their tools and their source files."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from sandbox.backend.http import InternalView, RefusedError, body_of, refuse, workflow_of
from sandbox.backend.models import ToolInstance
from sandbox.backend.representations import endpoint
from sandbox.backend.sources import list_source
from sandbox.backend.tenancy import as_uuid

_DENIED = "Workflow not found or access denied"


class WorkflowDefinition(InternalView):
    """GET `v1/workflow-manager/workflow/{id}/`: holds decrypted credentials, as the real one does."""

    failure = "Failed to get workflow definition"

    def get(self, _request: Request, workflow_id: str) -> Response:
        row = workflow_of(self.tenant, workflow_id, _DENIED)
        both = row.ends()
        return Response(
            {
                "id": str(row.id),
                "workflow_id": str(row.id),
                "workflow_name": row.name,
                "workflow_type": row.workflow_type,
                "source_config": endpoint(both["SOURCE"], merged=True),
                "destination_config": endpoint(both["DESTINATION"], merged=True),
                "organization_id": row.organization.organization_id,
                "created_at": row.created_at.isoformat(),
                "modified_at": row.modified_at.isoformat(),
                "is_active": True,
            }
        )


class WorkflowEndpoints(InternalView):
    """GET `v1/workflow-manager/{id}/endpoint/`."""

    failure = "Failed to get workflow endpoints"

    def get(self, _request: Request, workflow_id: str) -> Response:
        row = workflow_of(self.tenant, workflow_id, _DENIED)
        both = row.ends()
        return Response(
            {
                "workflow_id": str(row.id),
                "source_endpoint": endpoint(both["SOURCE"]),
                "destination_endpoint": endpoint(both["DESTINATION"]),
                "has_api_endpoints": any(end.connection_type == "API" for end in both.values()),
            }
        )


class WorkflowTools(InternalView):
    """GET `v1/workflow-manager/workflow/{id}/tool-instances/`."""

    failure = "Database lookup error"

    def get(self, _request: Request, workflow_id: str) -> Response:
        missing = f"Workflow {workflow_id} not found for organization {self.tenant.name}"
        workflow = workflow_of(self.tenant, workflow_id, missing)
        rows = ToolInstance.objects.filter(workflow=workflow).order_by("step")
        return Response({"tool_instances": [_tool_instance(row) for row in rows]})


def _tool_instance(row: ToolInstance) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "tool_id": row.tool_id,
        "step": row.step,
        "status": "READY",
        "version": row.version,
        "metadata": row.metadata,
        "input": {},
        "output": {},
    }


class ValidateTools(InternalView):
    """POST `v1/tool-execution/validate/`: 422 when an instance is unknown or marked as not valid."""

    failure = "Failed to validate tool instances"

    def post(self, request: Request) -> Response:
        body = body_of(request)
        workflow_id = body.get("workflow_id")
        if not workflow_id:
            raise refuse(400, "workflow_id is required")
        wanted = [str(item) for item in body.get("tool_instances") or []]
        workflow = self.tenant.workflows().filter(pk=as_uuid(workflow_id)).first()
        known = {str(row.id): row for row in ToolInstance.objects.filter(workflow=workflow)} if workflow else {}
        valid = [_validated(known[item]) for item in wanted if item in known and known[item].valid]
        errors = [_invalid(item, known.get(item)) for item in wanted if item not in known or not known[item].valid]
        if errors:
            raise RefusedError(
                422,
                {
                    "success": False,
                    "validated_instances": valid,
                    "errors": errors,
                    "workflow_id": workflow_id,
                },
            )
        answer = {"success": True, "validated_instances": valid, "errors": [], "workflow_id": workflow_id}
        return Response(answer)


def _validated(row: ToolInstance) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "tool_id": row.tool_id,
        "metadata": row.metadata,
        "step": row.step,
        "status": "valid",
    }


def _invalid(identifier: str, row: ToolInstance | None) -> dict[str, Any]:
    reason = "Tool instance not found" if row is None else "Tool settings are not valid"
    return {"id": identifier, "tool_id": row.tool_id if row else None, "error": reason}


class Tool(InternalView):
    """GET `v1/tool-execution/tool/{id}/`: an unknown tool is answered 200 with a stand-in."""

    def get(self, _request: Request, tool_id: str) -> Response:
        return Response({"tool": _EXTRACTOR if tool_id == "text_extractor" else _missing_tool(tool_id)})


_ADAPTER = {
    "is_enabled": True,
    "is_required": True,
    "title": "Text Extraction Adapter",
    "description": "Adapter to extract",
    "adapter_id": "extractorId",
}
_EXTRACTOR: dict[str, Any] = {
    "tool_id": "text_extractor",
    "properties": {
        "displayName": "Text Extractor",
        "functionName": "text_extractor",
        "description": "The Text Extractor is a powerful tool designed to convert documents to its text form or "
        "Extract texts from documents",
        "toolVersion": "0.0.76",
        "adapter": {
            "language_models": [],
            "embedding_services": [],
            "vector_stores": [],
            "text_extractors": [_ADAPTER],
            "ocrs": [],
        },
    },
    "image_name": "unstract/tool-text-extractor",
    "image_tag": "0.0.76",
    "name": "text_extractor",
    "description": "",
    "version": "latest",
}


def _missing_tool(tool_id: str) -> dict[str, Any]:
    name = f"Missing Tool ({tool_id[:8]}...)"
    reason = "Tool not found in registry or Prompt Studio"
    properties = {
        "displayName": name,
        "functionName": tool_id,
        "description": reason,
        "toolVersion": "unknown",
    }
    return {
        "tool_id": tool_id,
        "properties": properties,
        "image_name": "unstract/tool-structure",
        "image_tag": "0.0.101",
        "name": name,
        "description": reason,
        "version": "unknown",
        "note": "Fallback data for missing tool",
    }


class SourceFiles(InternalView):
    """POST `v1/workflow-manager/source-files/{workflow_id}/` `{execution_id, pipeline_id, use_file_history}`."""

    failure = "Failed to list source files"

    def post(self, request: Request, workflow_id: str) -> Response:
        body = body_of(request)
        workflow = workflow_of(self.tenant, workflow_id, _DENIED)
        source = workflow.ends()["SOURCE"]
        files = list_source(workflow, source, bool(body.get("use_file_history")))
        return Response(
            {
                "files": files,
                "total_files": len(files),
                "workflow_id": workflow_id,
                "execution_id": body.get("execution_id"),
                "pipeline_id": body.get("pipeline_id"),
            }
        )
