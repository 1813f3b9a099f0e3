"""The cases: a recording, the call of our client that makes its request, and what the call must say in either world.

`execute_file` and `file_run` are not here: their route was never written in the real backend, so nothing was recorded.
`test_reference.py` has them, and what else the recordings lack.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from shared.backend_models import FileRun, NewExecution, StatusUpdate
from shared.errors import BackendFailedError, BackendRefusedError, NotFoundError, UnauthorizedError
from shared.models import Counts, ExecuteOptions, FileHash, PipelineStatus, Status
from shared.platform_models import NotificationEvent, OrganizationKey, Webhook
from tests.contract.recordings import BY_NAME
from tests.contract.worlds import ORGANIZATION, Asker, Case
from tests.integration.sandbox.test_recordings import LEGEND

IDS = {meaning: identifier for identifier, meaning in LEGEND.items()}
UNKNOWN, MALFORMED = IDS["an id that does not exist"], "not-a-uuid"
API, ETL = IDS["the API workflow"], IDS["the ETL workflow"]
DEPLOYMENT, PIPELINE = IDS["the API deployment"], IDS["the ETL pipeline"]
RUN, ETL_RUN, PLAIN_RUN = IDS["the API execution"], IDS["the ETL execution"], IDS["the plain execution"]
GUARDED = next(
    identifier for meaning, identifier in IDS.items() if meaning.startswith("an execution with the terminal")
)
A, B, C = (
    IDS[f"file execution made by recording file_execution.create{more}"]
    for more in ("", ".second", ".etl_provider_uuid")
)
D = "85ef50e9-6049-4efb-b7c2-43a0c01be44f"
API_TOOL = IDS["the tool instance of the API workflow"]
WEBHOOK = IDS["a notification of the ETL pipeline"]
FOR_FAILURES = IDS["a notification of the ETL pipeline sent on failures only"]
KEY = OrganizationKey(26)
HASH = "3b978145cb55a53ac8abecfc2c4f7f0af9a791aba5a6114fc710609a3f3cd1b8"
HOOK = "http://127.0.0.1:58999/hook"
STORE = {"endpoint_url": "http://127.0.0.1:59000", "key": "minio", "secret": "minio123", "path": "/"}
NOT_A_UUID = "is not a valid UUID"


def body(name: str) -> dict[str, Any]:
    found: dict[str, Any] = BY_NAME[name]["request_json"]
    return found


def described(name: str) -> FileHash:
    """The file of a recorded request."""
    return FileHash.model_validate({"file_name": "nameless", **body(name).get("file_hash", {})})


def remembered(name: str) -> FileHash:
    """The file of a recorded request about its history, whose fields stand among others."""
    asked = body(name)
    return FileHash.model_validate({"file_name": "nameless", "file_hash": asked.get("cache_key"), **asked})


def listed(name: str) -> list[FileHash]:
    return [FileHash.model_validate(file) for file in body(name)["files"]]


def get_or_create(name: str) -> Callable[[Asker], Any]:
    return lambda to: to.api.file_execution(body(name)["execution_id"], body(name)["workflow_id"], described(name))


def batch(name: str) -> Callable[[Asker], Any]:
    asked = body(name)
    is_api = asked.get("is_api", False)
    return lambda to: to.api.file_batch(asked["workflow_execution_id"], listed(name), is_api=is_api)


def remember(name: str, run: FileRun) -> Callable[[Asker], Any]:
    asked = body(name)
    is_api = asked.get("is_api", False)
    return lambda to: to.api.remember_file(asked["workflow_id"], remembered(name), run, is_api=is_api)


def reserve(name: str) -> Callable[[Asker], Any]:
    return lambda to: to.api.reserve_file(ETL, remembered(name), body(name)["worker_id"])


def active(execution_id: str | None, *files: tuple[str | None, str]) -> Callable[[Asker], Any]:
    wanted = [FileHash(file_name="f", provider_file_uuid=uuid, file_path=path) for uuid, path in files]
    return lambda to: to.api.active_files(ETL, execution_id, wanted)


def event(name: str, **more: Any) -> Callable[[Asker], Any]:
    known = {key: value for key, value in body(name).items() if value is not None}
    known["timestamp"] = datetime.fromisoformat(known["timestamp"])
    return lambda to: to.api.enqueue_notification(NotificationEvent(**{**known, **more}))


def new_execution(workflow_id: str) -> Callable[[Asker], Any]:
    asked = NewExecution(
        workflow_id=workflow_id, pipeline_id=PIPELINE, scheduled=True, total_files=0, log_events_id="evt-1"
    )
    return lambda to: to.api.create_execution(asked)


def webhook(**fields: Any) -> Callable[[Asker], Any]:
    return lambda to: to.api.send_webhook(Webhook(**fields))


Said = tuple[type[Exception], str]
NO_EXECUTION: Said = (NotFoundError, "WorkflowExecution not found")
NOT_OURS: Said = (BackendFailedError, "Failed to retrieve workflow execution")
NOT_UPDATED: Said = (BackendFailedError, "No WorkflowExecution matches")
NO_WORKFLOW: Said = (NotFoundError, "Workflow not found")
NO_TOOLS: Said = (NotFoundError, "not found for organization")
NO_PIPELINE: Said = (NotFoundError, "Pipeline not found")
NOTHING_USED = {"total_tokens": None, "cost_in_dollars": None}
UPDATED = [{"id": PLAIN_RUN, "status": "EXECUTING"}]
WELL, ILL = (
    FileRun(status="COMPLETED", result={"x": 1}, metadata={"a": 1}),
    FileRun(status="error", error="boom", metadata={}),
)

CASES: dict[str, Case] = {
    "health.no_org": Case(lambda to: to.client.health(), {"status": "healthy", "authenticated": True}),
    "auth.wrong_key": Case(lambda to: to.client.health(), (UnauthorizedError, "API key does not match")),
    # Executions.
    "execution.get.no_files": Case(
        lambda to: to.api.execution(RUN),
        {
            "execution": {
                "id": RUN,
                "workflow_id": API,
                "pipeline_id": DEPLOYMENT,
                "status": "PENDING",
                "total_files": 3,
            },
            "workflow_definition": {"workflow_type": "API"},
            "source_config": {"is_api": True},
            "destination_config": {"use_file_history": True},
            "organization_context": {"organization_id": ORGANIZATION},
        },
    ),
    "execution.get.etl": Case(
        lambda to: to.api.execution(ETL_RUN, with_files=True),
        {
            "execution": {"pipeline_id": PIPELINE, "total_files": 2},
            "source_config": {"is_api": False},
            "file_executions": [],
        },
    ),
    "execution.final.readback": Case(
        lambda to: to.api.execution(RUN, with_files=True),
        {
            "execution": {"status": "COMPLETED", "is_terminal": True},
            "file_executions": [{"file_name": ""}, {"id": A, "status": "COMPLETED", "file_path": None}],
        },
    ),
    "execution.get.include_cost_after_usage": Case(
        lambda to: to.api.execution(RUN, with_cost=True), {"aggregated_usage_cost": 0.0121, "file_executions": []}
    ),
    "execution.batch_status.illegal_readback": Case(
        lambda to: to.api.execution(PLAIN_RUN), {"execution": {"status": "BANANA", "is_terminal": False}}
    ),
    "execution.get.unknown": Case(lambda to: to.api.execution(UNKNOWN), NO_EXECUTION),
    "execution.get.other_org": Case(lambda to: to.api.execution(RUN), NOT_OURS),
    "execution.get.unknown_org": Case(lambda to: to.api.execution(RUN), NOT_OURS),
    "auth.wrong.on_execution": Case(lambda to: to.api.execution(RUN), (UnauthorizedError, "API key does not match")),
    "execution.list": Case(
        lambda to: to.api.executions(API, [Status.PENDING, Status.EXECUTING]),
        [{"id": GUARDED, "total_files": 1}, {"id": PLAIN_RUN, "pipeline_id": None}, {"id": RUN}],
    ),
    "execution.list.empty": Case(lambda to: to.api.executions(API, [Status.STOPPED]), []),
    "execution.list.bad_uuid": Case(lambda to: to.api.executions(MALFORMED, []), (BackendFailedError, "500")),
    "execution.create": Case(new_execution(ETL), {"status": "PENDING", "execution_log_id": "evt-1"}),
    "execution.create.unknown_workflow": Case(new_execution(UNKNOWN), NO_WORKFLOW),
    "execution.created.readback": Case(
        lambda to: to.api.execution(to(IDS["execution made by recording execution.create"])),
        {"execution": {"workflow_id": ETL, "pipeline_id": PIPELINE, "status": "PENDING", "total_files": 0}},
    ),
    "execution.status.EXECUTING": Case(lambda to: to.api.start_execution(RUN, 3), None),
    "execution.final.revert_celery_row": Case(lambda to: to.api.start_execution(RUN, 3), None, more=True),
    "execution.status.unknown_id": Case(lambda to: to.api.start_execution(UNKNOWN, 3), NOT_UPDATED),
    "execution.status.other_org": Case(lambda to: to.api.start_execution(RUN, 3), NOT_UPDATED),
    "execution.final.COMPLETED": Case(
        lambda to: to.api.end_execution(RUN, Status.COMPLETED, Counts(3, 2, 1), None), True
    ),
    "execution.pg.COMPLETED": Case(
        lambda to: to.api.end_execution(GUARDED, Status.COMPLETED, Counts(1, 1, 0), None), True
    ),
    "execution.status.failed_gt_total": Case(
        lambda to: to.api.end_execution(RUN, Status.COMPLETED, Counts(1, 0, 2), None),
        (BackendRefusedError, "failed_files cannot exceed total_files"),
    ),
    "execution.batch_status": Case(
        lambda to: to.api.execution_statuses(
            [StatusUpdate(PLAIN_RUN, Status.EXECUTING), StatusUpdate(UNKNOWN, Status.EXECUTING)]
        ),
        {"successful_updates": UPDATED, "failed_updates": [{"id": UNKNOWN, "error": "Workflow execution not found"}]},
    ),
    "execution.batch_status.repair": Case(
        lambda to: to.api.execution_statuses([StatusUpdate(PLAIN_RUN, Status.EXECUTING)]),
        {"successful_updates": UPDATED, "failed_updates": [], "total_processed": 1},
    ),
    "execution.batch_status.other_org": Case(
        lambda to: to.api.execution_statuses([StatusUpdate(PLAIN_RUN, Status.ERROR)]),
        {"successful_updates": [], "failed_updates": [{"error": "Workflow execution not found"}]},
    ),
    "execution.batch_status.empty": Case(
        lambda to: to.api.execution_statuses([]), (BackendRefusedError, "updates list is required")
    ),
    # Their files.
    "workflow.source_files.etl": Case(
        lambda to: to.api.source_files(ETL, ETL_RUN, ExecuteOptions(pipeline_id=PIPELINE)),
        {
            "inbox/a.pdf": {"file_name": "a.pdf", "file_size": 36, "file_hash": None, "connector_metadata": STORE},
            "inbox/b.pdf": {"file_size": 35, "source_connection_type": "FILESYSTEM"},
        },
    ),
    "wm.file_batch": Case(
        batch("wm.file_batch"),
        {
            "total_files": 1,
            "created_file_executions": [{"file_name": "q.pdf", "status": "PENDING"}],
            "skipped_files": [],
        },
    ),
    "wm.file_batch.mixed_duplicate": Case(
        batch("wm.file_batch.mixed_duplicate"),
        {
            "created_file_executions": [{"file_name": "mix1"}, {"file_name": "q.pdf"}, {"file_name": "mix2"}],
            "skipped_files": [{"file_name": "q.pdf"}, {"file_name": "mix3"}],
        },
    ),
    # And none of those was created.
    "wm.file_batch.mixed_duplicate.readback": Case(
        lambda to: [row.file_name for row in to.api.file_executions(PLAIN_RUN) if row.file_name != "p.pdf"],
        ["q.pdf", "r.pdf"],
    ),
    "wm.file_batch.empty": Case(
        batch("wm.file_batch.empty"), (BackendRefusedError, "files: This list may not be empty")
    ),
    "wm.file_batch.bad_uuid": Case(batch("wm.file_batch.bad_uuid"), (BackendRefusedError, "Must be a valid UUID")),
    "file_execution.create": Case(
        get_or_create("file_execution.create"), {"status": "", "file_name": "a.pdf", "file_size": 1234}
    ),
    "file_execution.create.again_same": Case(get_or_create("file_execution.create.again_same"), {"id": A}),
    "file_execution.create.second": Case(get_or_create("file_execution.create.second"), {"file_name": "b.pdf"}),
    "file_execution.create.etl_provider_uuid": Case(
        get_or_create("file_execution.create.etl_provider_uuid"),
        {"file_hash": None, "file_path": "/in/c.pdf", "provider_file_uuid": "etag-c"},
    ),
    "file_execution.create.etl_same_again": Case(get_or_create("file_execution.create.etl_same_again"), {"id": C}),
    "file_execution.create.unknown_execution": Case(
        get_or_create("file_execution.create.unknown_execution"), NO_EXECUTION
    ),
    "file_execution.create.long_name": Case(
        get_or_create("file_execution.create.long_name"), (BackendFailedError, "value too long")
    ),
    "file_execution.get": Case(
        lambda to: to.api.file_execution_row(to(A)),
        {"id": A, "workflow_execution_id": RUN, "file_name": "a.pdf", "file_path": None, "status": ""},
    ),
    "file_execution.get.bad_uuid": Case(lambda to: to.api.file_execution_row(MALFORMED), (BackendFailedError, "500")),
    "file_execution.list.by_execution": Case(
        lambda to: to.api.file_executions(RUN), [{"id": A, "file_name": "a.pdf"}, {"id": B}, {"file_name": ""}]
    ),
    "file_execution.list.empty": Case(lambda to: to.api.file_executions(UNKNOWN), []),
    "file_execution.list.bad_uuid": Case(lambda to: to.api.file_executions(MALFORMED), (BackendFailedError, "500")),
    "file_execution.status.EXECUTING": Case(lambda to: to.api.file_status(to(A), Status.EXECUTING), None),
    "file_execution.status.COMPLETED": Case(lambda to: to.api.file_status(to(A), Status.COMPLETED), None),
    "file_execution.status.ERROR": Case(lambda to: to.api.file_status(to(B), Status.ERROR, "boom"), None),
    "file_execution.status.revert_terminal": Case(lambda to: to.api.file_status(to(A), Status.EXECUTING), None),
    "file_execution.status.unknown": Case(
        lambda to: to.api.file_status(UNKNOWN, Status.COMPLETED), (NotFoundError, "No file execution found")
    ),
    "file_execution.status.other_org": Case(
        lambda to: to.api.file_status(to(A), Status.ERROR), (NotFoundError, "No file execution found")
    ),
    "file_execution.status.bad_uuid": Case(
        lambda to: to.api.file_status(MALFORMED, Status.COMPLETED), (BackendFailedError, NOT_A_UUID)
    ),
    "file_execution.batch_status": Case(
        lambda to: to.api.file_statuses(
            [StatusUpdate(to(D), Status.COMPLETED), StatusUpdate(UNKNOWN, Status.COMPLETED)]
        ),
        {
            "successful_updates": [{"id": D, "status": "COMPLETED"}],
            "failed_updates": [{"id": UNKNOWN, "error": "WorkflowFileExecution not found"}],
        },
    ),
    "file_execution.batch_status.empty": Case(
        lambda to: to.api.file_statuses([]), (BackendRefusedError, "status_updates list is required")
    ),
    "wm.check_active.new": Case(
        active(UNKNOWN, ("etag-c", "/in/c.pdf"), ("etag-z", "/in/z.pdf")), {"active_identifiers": []}
    ),
    "wm.check_active.hit": Case(
        active(None, ("etag-c", "/in/c.pdf"), ("etag-z", "/in/z.pdf")), {"active_identifiers": ["etag-c:/in/c.pdf"]}
    ),
    "wm.check_active.self_excluded": Case(active(ETL_RUN, ("etag-c", "/in/c.pdf")), {"active_identifiers": []}),
    "wm.check_active.no_uuid": Case(active(ETL_RUN, (None, "/x")), (BackendRefusedError, "must have 'uuid'")),
    "wm.check_active.missing": Case(active(ETL_RUN), (BackendRefusedError, "are required")),
    "wm.increment.completed": Case(lambda to: to.api.count_file(API, RUN, "completed"), None),
    "wm.increment.failed": Case(lambda to: to.api.count_file(API, RUN, "failed"), None),
    "wm.increment.unknown": Case(
        lambda to: to.api.count_file(API, UNKNOWN, "failed"), (NotFoundError, "Workflow execution not found")
    ),
    # What is remembered of files.
    "file_history.create": Case(
        remember("file_history.create", WELL),
        {"status": "COMPLETED", "result": '{"x": 1}', "metadata": "{'a': 1}", "execution_count": 1},
    ),
    "file_history.create.again": Case(
        remember("file_history.create.again", FileRun(status="COMPLETED", result={"x": 2}, metadata={"a": 2})),
        {"result": '{"x": 2}', "metadata": "{'a': 2}", "execution_count": 1},
    ),
    "file_history.create.error_status": Case(
        remember("file_history.create.error_status", ILL), {"status": "ERROR", "result": "", "error": "boom"}
    ),
    "file_history.create.api": Case(
        remember("file_history.create.api", FileRun(status="COMPLETED", result="[]", metadata={})),
        {"status": "COMPLETED", "result": "[]", "file_path": "unstract/api/a.pdf"},
    ),
    "file_history.create.missing": Case(
        remember("file_history.create.missing", WELL), (BackendRefusedError, "workflow_id and file_hash are required")
    ),
    "file_history.create.unknown_workflow": Case(remember("file_history.create.unknown_workflow", WELL), NO_WORKFLOW),
    "file_history.reserve": Case(reserve("file_history.reserve"), {"reserved": True, "held": False}),
    "file_history.reserve.conflict": Case(reserve("file_history.reserve.conflict"), {"reserved": False, "held": True}),
    "file_history.reserve.done": Case(
        reserve("file_history.reserve.done"),
        {"already_processed": True, "held": False, "file_history": {"result": '{"x": 2}'}},
    ),
    "wm.file_history.check_batch": Case(
        lambda to: to.api.file_histories(ETL, body("wm.file_history.check_batch")["file_hashes"]),
        {
            HASH: {
                "status": "COMPLETED",
                "result": '{"x": 2}',
                "error": "",
                "file_path": "/in/h.pdf",
                "execution_count": 2,
            }
        },
    ),
    "wm.file_history.check_batch.missing": Case(
        lambda to: to.api.file_histories(ETL, []), (BackendRefusedError, "workflow_id and file_hashes are required")
    ),
    # What executions belong to.
    "workflow.definition.etl": Case(
        lambda to: to.api.workflow(ETL),
        {
            "workflow_type": "ETL",
            "organization_id": ORGANIZATION,
            "source_config": {
                "configuration": {"secret": "minio123"},
                "connector_instance": {"connector_name": "minio-4e82bf75", "connector_metadata": STORE},
            },
            "destination_config": {"connection_type": "DATABASE"},
        },
    ),
    "workflow.definition.unknown": Case(lambda to: to.api.workflow(UNKNOWN), NO_WORKFLOW),
    "workflow.definition.other_org": Case(lambda to: to.api.workflow(API), NO_WORKFLOW),
    "workflow.definition.bad_uuid": Case(lambda to: to.api.workflow(MALFORMED), (BackendFailedError, NOT_A_UUID)),
    "workflow.endpoints.api": Case(
        lambda to: to.api.workflow_endpoints(API),
        {"has_api_endpoints": True, "source_endpoint": {"connection_type": "API", "connector_instance": None}},
    ),
    "workflow.endpoints.etl": Case(
        lambda to: to.api.workflow_endpoints(ETL),
        {"has_api_endpoints": False, "destination_endpoint": {"configuration": {"table": "out"}}},
    ),
    "tool_instances.by_workflow.api": Case(
        lambda to: to.api.tool_instances(API), [{"id": API_TOOL, "tool_id": "text_extractor"}]
    ),
    "tool_instances.unknown_workflow": Case(lambda to: to.api.tool_instances(UNKNOWN), NO_TOOLS),
    "tool_instances.other_org": Case(lambda to: to.api.tool_instances(API), NO_TOOLS),
    "tool.validate.api": Case(lambda to: to.api.validate_tools(API, [API_TOOL]), True),
    "pipeline.get.etl.check_active": Case(
        lambda to: to.api.pipeline(PIPELINE),
        {"workflow": ETL, "organization": KEY, "active": True, "is_api": False, "last_run_status": "YET_TO_START"},
    ),
    "pipeline.get.api": Case(
        lambda to: to.api.pipeline(DEPLOYMENT), {"active": True, "is_api": True, "pipeline_name": "api_4e82bf75"}
    ),
    "pipeline.get.other_org": Case(lambda to: to.api.pipeline(PIPELINE), NO_PIPELINE),
    "pipeline.put.etl.INPROGRESS": Case(
        lambda to: to.api.pipeline_status(PIPELINE, PipelineStatus.INPROGRESS, is_end=False), None
    ),
    "pipeline.put.etl.restore": Case(
        lambda to: to.api.pipeline_status(PIPELINE, PipelineStatus.SUCCESS, is_end=True), None
    ),
    "pipeline.get.after": Case(lambda to: to.api.pipeline(PIPELINE), {"last_run_status": "SUCCESS"}),
    "pipeline.put.api": Case(lambda to: to.api.pipeline_status(DEPLOYMENT, PipelineStatus.SUCCESS, is_end=True), None),
    "api_deployment.get": Case(
        lambda to: to.api.api_deployment(DEPLOYMENT), {"is_active": True, "workflow": API, "organization": KEY}
    ),
    "api_deployment.get.unknown": Case(lambda to: to.api.api_deployment(UNKNOWN), (NotFoundError, "APIDeployment")),
    "api_deployment.get.bad_uuid": Case(lambda to: to.api.api_deployment(MALFORMED), (NotFoundError, "no reason")),
    "organization.context": Case(lambda to: to.api.organization(), {"key": KEY, "organization_name": "Org-4E82Bf75"}),
    "configuration.override": Case(lambda to: to.api.configuration("MAX_PARALLEL_FILE_BATCHES"), 4),
    "configuration.notification_interval": Case(lambda to: to.api.configuration("NOTIFICATION_CLUB_INTERVAL"), 300),
    "configuration.unknown_key": Case(
        lambda to: to.api.configuration("NO_SUCH_KEY"), (BackendRefusedError, "Unknown configuration key")
    ),
    "usage.tokens.empty": Case(lambda to: to.api.usage(to(A)), NOTHING_USED),
    "usage.tokens": Case(
        lambda to: to.api.usage(to(A)), {"prompt_tokens": 100, "total_tokens": 127, "cost_in_dollars": 0.0121}
    ),
    "usage.tokens.bad_uuid": Case(lambda to: to.api.usage(MALFORMED), (BackendFailedError, "Internal server error")),
    # Who wants to hear of them.
    "webhook.pipeline_notifications": Case(
        lambda to: to.api.pipeline_notifications(PIPELINE),
        {
            "notifications": [
                {
                    "id": WEBHOOK,
                    "url": HOOK,
                    "authorization_type": "BEARER",
                    "authorization_key": "tok-1",
                    "max_retries": 2,
                },
                {"id": FOR_FAILURES, "platform": "SLACK", "notify_on_failures": True, "authorization_key": None},
            ],
            "execution_counts": {"total_files": None},
        },
    ),
    "webhook.pipeline_notifications.execution": Case(
        lambda to: to.api.pipeline_notifications(PIPELINE, ETL_RUN), {"execution_counts": {"total_files": 2}}
    ),
    "webhook.pipeline_notifications.unknown": Case(
        lambda to: to.api.pipeline_notifications(UNKNOWN), (NotFoundError, "Pipeline or API deployment not found")
    ),
    "webhook.api_notifications": Case(
        lambda to: to.api.api_notifications(DEPLOYMENT, RUN),
        {
            "notifications": [{"authorization_header": "X-Auth", "authorization_key": "sek", "is_active": True}],
            "execution_counts": {"total_files": 3, "failed_files": 0},
        },
    ),
    "webhook.api_notifications.unknown": Case(
        lambda to: to.api.api_notifications(UNKNOWN), (BackendFailedError, "Internal server error")
    ),
    "webhook.buffer.enqueue": Case(
        lambda to: bool(event("webhook.buffer.enqueue")(to)),
        True,
    ),
    "webhook.buffer.enqueue.inprogress_failure_only": Case(
        event("webhook.buffer.enqueue.inprogress_failure_only", execution_id=ETL_RUN), None, more=True
    ),
    "webhook.buffer.process": Case(
        lambda to: to.client.dispatch_notifications(),
        {"dead_letter_rows": 0, "reclaimed_rows": 0, "gc_deleted_rows": 0},
    ),
    "webhook.buffer.mark_dispatched": Case(
        lambda to: to.api.mark_dispatched(body("webhook.buffer.mark_dispatched")["buffer_row_ids"], KEY), 0
    ),
    "webhook.buffer.mark_dead_letter": Case(
        lambda to: to.api.mark_dead(body("webhook.buffer.mark_dead_letter")["buffer_row_ids"], KEY), 0
    ),
    "webhook.buffer.mark.missing": Case(
        lambda to: to.api.mark_dispatched([], KEY), (BackendRefusedError, "buffer_row_ids and organization_id")
    ),
    "webhook.send": Case(webhook(**body("webhook.send")), {"status": "queued"}),
    "webhook.send.bad_url": Case(webhook(**body("webhook.send.bad_url")), (BackendRefusedError, "Enter a valid URL")),
    "webhook.send.client_default": Case(
        webhook(**body("webhook.send.client_default")), (BackendRefusedError, "is not a valid choice")
    ),
    "emit_websocket": Case(lambda to: to.client.emit("session-1", "logs:session-1", {"m": 1}), None),
    "emit_websocket.missing": Case(
        lambda to: to.client.emit("r", "", {}), (BackendRefusedError, "room and event are required")
    ),
    "logs.process_history.empty": Case(
        lambda to: to.client.process_log_history(), {"processed_count": 0, "total_logs": 0}
    ),
    "logs.process_history.two": Case(
        lambda to: to.client.process_log_history(),
        {"processed_count": 1, "skipped_count": 1, "organizations_processed": 1},
    ),
}
