"""What `deploy.sh` makes of a checkout on a real Docker Engine, and what it says of it where a test fails."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.driver import Deployment, Driver
from tests.acceptance.deploy import servers
from tests.acceptance.deploy.checkout import Checkout
from tests.acceptance.deploy.engine import docker, no_engine
from tests.acceptance.test_executions import documents


@dataclass(frozen=True)
class Fleet:
    """What is deployed, and a user of it.

    Attributes:
        checkout: whose script deploys it.
        said: what the script said when it had.
        consumers: how many each queue had at that moment.
        driver: the user.
        deployment: the user's, whose files may each be a batch.
        documents: some to post.
    """

    checkout: Checkout
    said: str
    consumers: dict[str, int]
    driver: Driver
    deployment: Deployment
    documents: dict[str, Path]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout whose containers and images go with it. Without an engine nothing is required: it is run by hand."""
    reason = no_engine()
    if reason:
        pytest.skip(reason)
    servers.provide()
    made = Checkout(tmp_path_factory.mktemp("deploy"))
    yield made
    made.project.remove()
    images = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"{made.name}/*").split()
    if images:
        docker("image", "rm", "--force", *images)


@pytest.fixture(scope="module")
def fleet(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The first deployment, of tag t1, as one command makes it from nothing."""
    said = checkout.run("deploy", "--tag", "t1", "--yes")
    consumers = checkout.project.consumers()
    checkout.key = (checkout.folder / "docker/secrets/development/internal_service_api_key").read_text().strip()
    with Driver(checkout) as driver:
        deployment = driver.deploy("deployed", batches=4)
        yield Fleet(checkout, said, consumers, driver, deployment, documents(tmp_path_factory.mktemp("notes"), 2))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test that failed, how the containers are, and the end of each log."""
    report = yield
    made = item.funcargs.get("checkout")
    if report.failed and isinstance(made, Checkout):
        report.sections.append(("containers", made.project.said()))
    return report
