"""One thread, and random seeds that change from run to run but are printed."""

import os
import random

import hypothesis
import pytest
import torch as th

th.set_num_threads(1)
# CI runs often, and each time with another seed.
EXAMPLES = 15 if "CI" in os.environ else 100
hypothesis.settings.register_profile("suite", deadline=None, print_blob=True, max_examples=EXAMPLES)
hypothesis.settings.load_profile("suite")

# setdefault: the workers of pytest-xdist inherit the environment, so that all have the seed that is printed.
SEED = int(os.environ.setdefault("TEST_SEED", str(random.SystemRandom().randrange(10_000))))


def pytest_report_header() -> str:
    """Print the seed, so that a run can be repeated."""
    return f"TEST_SEED={SEED}"


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed torch for each test, and return the seed."""
    th.manual_seed(SEED)
    return SEED
