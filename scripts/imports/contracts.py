"""The contracts of pyproject.toml, which say who may import whom: import-linter finds what breaks them."""

from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

from grimp.exceptions import SourceSyntaxError
from importlinter import configuration
from importlinter.application.use_cases import create_report, read_user_options
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract
from importlinter.domain.contract import Contract, ContractCheck, registry

_Chain = list[dict[str, Any]]


def broken(root: Path) -> Iterator[str]:
    """Each import that breaks a contract of the project in `root`, as `path:line: chain: contract → remedy`.

    The project's packages must be those that this process would import. A contract's remedy is its
    `broken_contract_guidance`.
    """
    configuration.configure()
    registry.register(LayersContract, "layers")
    registry.register(ForbiddenContract, "forbidden")
    settings = root / "pyproject.toml"
    try:
        with redirect_stdout(StringIO()):  # it shows its progress
            report = create_report(read_user_options(str(settings)), cache_dir=str(root / ".import_linter_cache"))
    except SourceSyntaxError as error:
        yield f"{error.filename}:{error.lineno}: no contract was looked at → mend this first"
        return
    for name, mistake in report.invalid_contract_options.items():
        yield f"{settings.name}:1: {name}: {mistake.errors} → mend the contract"
    for contract, check in report.get_contracts_and_checks():
        for chain in _chains(check):
            yield _line(root, contract, chain)


def _chains(check: ContractCheck) -> Iterator[_Chain]:
    for group in check.metadata.get("invalid_chains", ()):
        yield from group["chains"]
    for group in check.metadata.get("invalid_dependencies", ()):
        for route in group["routes"]:
            # Of a longer chain, other modules may begin it or end it: each is an import that must go.
            first, *middle = route["chain"]
            if not middle:
                yield [first]
                continue
            between, last = middle[:-1], middle[-1]
            for begin, end in product((first, *route["extra_firsts"]), (last, *route["extra_lasts"])):
                yield [begin, *between, end]


def _line(root: Path, contract: Contract, chain: _Chain) -> str:
    module = root.joinpath(*chain[0]["importer"].split("."))
    path = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    names = " imports ".join((chain[0]["importer"], *(link["imported"] for link in chain)))
    remedy = contract.contract_options["broken_contract_guidance"]
    return f"{path.relative_to(root)}:{chain[0]['line_numbers'][0]}: {names}: {contract.name} → {remedy}"
