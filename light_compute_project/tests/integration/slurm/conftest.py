"""The SLURM of this folder's tests, and how they wait."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from tests.integration.slurm.cluster import PATH, PROGRAMS, Cluster, wait_for


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """`until(condition, what, seconds=60)` waits, or fails."""
    return wait_for


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        pytest.skip(f"no SLURM on this machine (apt-get install slurm-wlm munge): {', '.join(missing)} not found")
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
    except AssertionError as problem:
        consoles = cluster.consoles()
        cluster.stop()
        pytest.skip(f"SLURM is installed, but this machine does not let it start: {problem}\n{consoles}")
    except BaseException:
        cluster.stop()
        raise
    yield cluster
    cluster.stop()
