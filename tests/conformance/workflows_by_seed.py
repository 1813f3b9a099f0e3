"""What WORKFLOW_MODULES of the workers that are killed names."""

from tests.conformance.drawn import by_seed, declare

SEEDS = range(24)

for _seed in SEEDS:
    globals()[f"Workflow{_seed}"] = declare(by_seed(_seed))
