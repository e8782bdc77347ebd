"""What all tests share: quiet NaNs, repeatable examples, the folder of larger data."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import chainrule as cr

# The same examples on each run and machine, and no limit on time: cores are shared.
settings.register_profile(
    "ci", derandomize=True, deadline=None, database=None, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("search", deadline=None, max_examples=2000)  # --hypothesis-profile=search
settings.load_profile("ci")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _quiet_floats() -> Iterator[None]:
    """NaN and infinity are values here, as they are for PyTorch: the tests look at the numbers."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with MNIST and the texts, which a plain clone does not have."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the data in {SHARED_DATA}, which is not part of the repository")
    return SHARED_DATA


@pytest.fixture(params=["numpy", "native"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """A test with the reference and with machine code, graphs verified."""
    with cr.settings.using(compile=request.param, verify=True):
        yield request.param
