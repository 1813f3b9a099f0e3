"""`source_config` and `destination_config` of an execution's answer."""

from __future__ import annotations

from typing import Any

from sandbox.backend.models import ApiDeployment, Endpoint, Execution, Pipeline


def source_config(row: Execution, pipeline: Pipeline | ApiDeployment | None, source: Endpoint | None) -> dict[str, Any]:
    """`type` says how the execution came to be: by an API deployment, a pipeline, or neither."""
    if row.pipeline_id is None:
        return {"type": "general_workflow", "source_settings": {}, "is_api": False}
    if pipeline is None:
        return {"type": "pipeline_not_found", "source_settings": {}, "is_api": False}
    api = isinstance(pipeline, ApiDeployment)
    config: dict[str, Any] = {
        "type": "api_deployment" if api else "pipeline",
        "source_settings": source.configuration if source else {},
        "is_api": api,
        "pipeline_id": str(pipeline.id),
    }
    return {**config, **_connector(source, "connector_id", "connector_settings", "connector_name")}


def destination_config(source: Endpoint | None, destination: Endpoint | None) -> dict[str, Any]:
    """Holds the source's connector too: the old workers wrote files from it."""
    if destination is None:
        return {"connection_type": "FILESYSTEM", "settings": {}, "is_api": False, "use_file_history": True}
    config: dict[str, Any] = {
        "connection_type": destination.connection_type,
        "settings": destination.configuration,
        "is_api": destination.connection_type == "API",
        "use_file_history": True,
    }
    config |= _connector(destination, "connector_id", "connector_settings", "connector_name")
    return {**config, **_connector(source, "source_connector_id", "source_connector_settings", None)}


def _connector(end: Endpoint | None, id_key: str, settings_key: str, name_key: str | None) -> dict[str, Any]:
    if end is None or end.connector is None:
        return {}
    shown = {id_key: end.connector["connector_id"], settings_key: end.connector["connector_metadata"]}
    if name_key is not None:
        shown[name_key] = end.connector["connector_name"]
    return shown
