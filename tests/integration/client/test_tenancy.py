"""Many threads for many tenants through one client: what each is answered is its own."""

import random
from concurrent.futures import ThreadPoolExecutor

from shared.errors import BackendUnavailableError
from tests.integration.client.clients import STURDY, MakeClient, MakeServer
from tests.integration.client.hostile import Peer, Received, answer, execution

THREADS, TENANTS, EACH = 32, 8, 20


def echo(request: Received, peer: Peer) -> None:
    """The tenant and the id as they came, marked with a cookie; one in ten connections ends in the midst of it."""
    said = answer(execution(request.name, request.headers["x-organization-id"]), Set_Cookie=f"of={request.name}")
    fate = random.random()  # noqa: S311 # chance, and no secret
    if fate < 0.05:
        peer.send(said[: len(said) // 2])
        peer.reset()
        return
    peer.send(said + (said if fate > 0.95 else b""))  # and one in twenty says everything twice


def test_no_answer_crosses_to_another_tenant(serve: MakeServer, connect: MakeClient) -> None:
    server = serve(echo)
    client = connect(server.url, 10, INTERNAL_API_TIMEOUT="10", INTERNAL_API_RETRY_ATTEMPTS="3", **STURDY)
    unanswered: list[str] = []

    def work(number: int) -> None:
        tenant = f"tenant-{number % TENANTS}"
        api = client.for_organization(tenant)
        for turn in range(EACH):
            name = f"{tenant}-{number}-{turn}"
            try:
                found = api.execution(name).execution
            except BackendUnavailableError:
                unanswered.append(name)
            else:
                assert (found.workflow_id, found.id) == (tenant, name)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    assert len(server.requests) >= THREADS * EACH
    assert len(unanswered) < 10
    for request in server.requests:
        assert request.name.startswith(request.headers["x-organization-id"] + "-")
        assert "cookie" not in request.headers
