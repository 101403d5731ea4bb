"""The far cluster of this folder's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.conftest import USER_CACHE
from tests.integration.sky_slurm.far_cluster import REGION, FarCluster, obstacle


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarCluster]:
    """SLURM behind sshd, and a laptop whose SkyPilot may use it."""
    if why := obstacle():
        pytest.skip(f"no real SkyPilot on a real SLURM: {why}")
    far = FarCluster(tmp_path_factory.mktemp("far"), cache=Path(USER_CACHE), kept=[tmp_path_factory.getbasetemp()])
    try:
        far.start()
        said = far.sky("check", "slurm")
        assert "Enabled infra" in said and REGION in said, said
        yield far
    finally:
        far.stop()
