"""datatrove's job arrays on a real SLURM give the bytes of the local engine; a driver that is killed is started again.

Nightly: it installs datatrove's environment.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.data.stream.datatrove_engine import VARIABLE, datatrove_python

pytestmark = [pytest.mark.nightly, pytest.mark.serial, pytest.mark.timeout(900)]
SCRIPT = """
import json, sys
from litgpt_core.data.prepare import prepare
from litgpt_core.data.stream_settings import RowsSettings
from litgpt_core.tokenizers.settings import SubwordSettings
made = prepare(RowsSettings(**json.loads(sys.argv[1])), SubwordSettings(kind="bpe", vocab_size=400))
print(made.directory)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    try:
        return str(datatrove_python(tmp_path_factory.mktemp("engine")))
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))


def test_job_arrays_give_the_bytes_of_the_local_engine_and_outlive_their_driver(
    cluster: Any, python: str, until: Callable[..., None], tmp_path: Path
) -> None:
    rng = random.Random(5)
    folder = tmp_path / "rows"
    folder.mkdir()
    for number in range(3):
        words = (["".join(rng.choices("abcdefgh", k=5)) for _ in range(rng.randrange(8, 90))] for _ in range(300))
        rows = [json.dumps({"text": " ".join(each)}) for each in words]
        rows += rows[number : number + 40]  # exact copies of documents
        (folder / f"{number}.jsonl").write_text("\n".join(rows) + "\n")
    base = {"path": str(folder), "chunk_bytes": 40_000, "val_fraction": 0.1, "near_duplicates": "remove"}
    base |= {"engine": "datatrove", "workers": 2}
    slurm = {"executor": "slurm", "slurm": {"partition": "two", "time": "00:20:00", "workers": 2}}
    environment = os.environ | {VARIABLE: python}

    def start(more: dict[str, Any], name: str) -> subprocess.Popen[str]:
        given = json.dumps(base | more | {"cache_dir": str(tmp_path / name)})
        return subprocess.Popen(
            [sys.executable, "-P", "-c", SCRIPT, given],
            env=environment | cluster.for_shell,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def made(process: subprocess.Popen[str]) -> dict[str, bytes]:
        out, said = process.communicate(timeout=500)
        assert process.returncode == 0, said[-3000:]
        place = Path(out.strip().splitlines()[-1])
        assert json.loads((place / "meta.json").read_text())["near_duplicates_left_out"] >= 120
        return {file.name: file.read_bytes() for file in place.iterdir() if file.suffix in (".ds", ".index", ".json")}

    local = made(start({}, "local"))
    assert len([name for name in local if name.endswith(".ds")]) > 5
    first = start(slurm, "slurm")
    until(
        lambda: (
            any((tmp_path / "slurm").glob(".*.work/datatrove/signatures/completions/*")) or first.poll() is not None
        ),
        "the first task on SLURM",
        seconds=240,
    )
    assert first.poll() is None, first.communicate()[1][-3000:]
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    found = made(start(slurm, "slurm"))
    assert found.keys() == local.keys()
    different = [name for name in local if found[name] != local[name] and name != "meta.json"]
    assert not different, different
    assert not cluster.run("squeue", "-h").stdout.strip(), "nothing is left in the queue"
