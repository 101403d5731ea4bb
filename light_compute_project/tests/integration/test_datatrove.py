"""datatrove's local executor gives the bytes of the local engine, after any kill; MinHash leaves one of each kind.

Nightly: it installs datatrove's environment.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.integration.trove_corpus import (
    TOKENIZER,
    contents,
    datatrove_installed,
    script,
    settings,
    text,
    write_corpus,
)

from litgpt_core.data.prepare import prepare
from litgpt_core.data.stream.datatrove_engine import RAY_PINS, VARIABLE
from litgpt_core.tokenizers.registry import load

pytestmark = [pytest.mark.nightly, pytest.mark.serial, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def datatrove(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its environment, made once."""
    with datatrove_installed(tmp_path_factory.mktemp("engine")) as python:
        yield python


def test_the_bytes_are_those_of_the_local_engine_also_after_a_kill(tmp_path: Path) -> None:
    rng = random.Random(1)
    folder = write_corpus(tmp_path / "rows", [text(rng, rng.randrange(5, 200)) for _ in range(2000)])
    local = prepare(settings(folder, "local"), TOKENIZER)
    assert len(local.shards("train")) > 20
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", script(settings(folder, "trove", engine="datatrove", workers=1))],
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not list((tmp_path / "trove").glob(".*.work/chunk-0000[3-9].json")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (work,) = (tmp_path / "trove").glob(".*.work")
    done = {file: file.stat().st_mtime_ns for file in work.glob("train-*.ds")}
    assert 3 < len(done) < len(local.shards("train"))
    trove = prepare(settings(folder, "trove", engine="datatrove"), TOKENIZER)
    assert contents(trove) == contents(local) and trove.fingerprint == local.fingerprint
    kept = {file.name: file.stat().st_mtime_ns for file in trove.directory.glob("train-*.ds")}
    assert sum(kept[file.name] == stamp for file, stamp in done.items()) >= len(done) - 1, "done again"


def test_of_near_duplicates_one_is_kept_however_many_workers_there_are(tmp_path: Path) -> None:
    rng = random.Random(2)
    singles = [text(rng, 120) for _ in range(150)]
    copied = [text(rng, 120) for _ in range(20)]
    near = []
    for each in copied:  # one word in sixty: about 0.85 of the runs of five words are common
        words = each.split()
        words[30], words[90] = "changed", "words"
        near.append(" ".join(words))
    texts = singles + copied + near + copied[:5]
    rng.shuffle(texts)
    folder = write_corpus(tmp_path / "rows", texts)
    found = [
        prepare(
            settings(folder, f"cache{workers}", engine="datatrove", near_duplicates="remove", workers=workers),
            TOKENIZER,
        )
        for workers in (1, 3)
    ]
    assert contents(found[0]) == contents(found[1])
    assert found[0].meta["near_duplicates_left_out"] == len(near) + 5
    tokenizer = load(found[0].tokenizer_dir)
    left = []
    for side in ("train", "val"):
        ids = found[0].tokens(side).tolist()
        while ids:
            end = ids.index(found[0].eos_id)
            left.append(tokenizer.decode(ids[:end]))
            ids = ids[end + 1 :]
    assert set(singles) <= set(left) and len(left) == len(singles) + len(copied)
    assert all((one in left) != (other in left) for one, other in zip(copied, near, strict=True))
    # asked again, nothing is read; read again, nothing is made
    again = prepare(settings(folder, "cache1", engine="datatrove", near_duplicates="remove", verify="full"), TOKENIZER)
    assert again.directory == found[0].directory


def test_the_ids_are_those_of_datatroves_own_tokenizer(tmp_path: Path) -> None:
    rng = random.Random(3)
    folder = write_corpus(tmp_path / "rows", [text(rng, 40) for _ in range(300)], files=1)
    local = prepare(settings(folder, "local", chunk_bytes=10**9), TOKENIZER)
    out = tmp_path / "own"
    program = (
        "import json, sys\nfrom pathlib import Path\nfrom datatrove.data import Document\n"
        "from datatrove.executor import LocalPipelineExecutor\n"
        "from datatrove.pipeline.tokens import DocumentTokenizer\n"
        "source, out, tokenizer = sys.argv[1:]\n"
        "lines = Path(source, '0.jsonl').read_text().splitlines()\n"
        "documents = [Document(text=json.loads(line)['text'], id=str(n)) for n, line in enumerate(lines)]\n"
        "step = DocumentTokenizer(out, tokenizer_name_or_path=tokenizer, eos_token='<|endoftext|>', "
        "shuffle_documents=False)\n"
        "LocalPipelineExecutor([documents, step], tasks=1, logging_dir=out + '/logs').run()\n"
    )
    done = subprocess.run(
        [os.environ[VARIABLE], "-c", program, str(folder), str(out), str(local.tokenizer_dir / "tokenizer.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (shard,) = out.glob("*.ds")
    theirs, eos = shard.read_bytes(), local.eos_id.to_bytes(2, "little")
    ours = b"".join(file.read_bytes() for file in sorted(local.directory.glob("*.ds")))
    assert len(ours) == len(theirs)

    def documents(raw: bytes) -> list[bytes]:
        ids = [raw[at : at + 2] for at in range(0, len(raw), 2)]
        ends = [at for at, each in enumerate(ids) if each == eos]
        return sorted(b"".join(ids[a + 1 : b + 1]) for a, b in zip([-1, *ends], ends, strict=False))

    assert documents(ours) == documents(theirs)


# ---- Ray


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The environment with Ray, made once."""
    given = os.environ.pop(VARIABLE, None)
    with datatrove_installed(tmp_path_factory.mktemp("ray"), RAY_PINS) as python:
        yield python
    if given is not None:
        os.environ[VARIABLE] = given


def ray_processes() -> list[int]:
    """Processes of Ray on this computer, by the programs that it starts."""
    found = []
    for process in psutil.process_iter(["name", "status"]):
        alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if alive and (process.info["name"] in ("raylet", "gcs_server") or process.info["name"].startswith("ray::")):
            found.append(process.pid)
    return found


def test_ray_gives_the_bytes_of_the_local_engine_and_leaves_no_process(ray: Path, tmp_path: Path) -> None:
    rng = random.Random(4)
    texts = [text(rng, 120) for _ in range(120)]
    folder = write_corpus(tmp_path / "rows", [*texts, *texts[:10]])
    before = ray_processes()
    for near in ("keep", "remove"):
        mine = settings(folder, f"ray-{near}", engine="datatrove", executor="ray", near_duplicates=near)
        found = prepare(mine, TOKENIZER)
        executor = "local" if near == "remove" else None  # without near-duplicates also against the local engine
        changes = {"engine": "datatrove", "executor": executor, "near_duplicates": near} if executor else {}
        assert contents(found) == contents(prepare(settings(folder, f"here-{near}", **changes), TOKENIZER))
    assert found.meta["near_duplicates_left_out"] == 10
    deadline = time.monotonic() + 30
    while left := set(ray_processes()) - set(before):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def test_ray_goes_on_after_everything_was_killed(ray: Path, tmp_path: Path) -> None:
    rng = random.Random(5)
    folder = write_corpus(tmp_path / "rows", [text(rng, 100) for _ in range(2000)])
    local = prepare(settings(folder, "local"), TOKENIZER)
    mine = settings(folder, "ray", engine="datatrove", executor="ray", ray={"workers": 1})
    before = ray_processes()
    process = subprocess.Popen([sys.executable, "-P", "-c", script(mine)], start_new_session=True)
    end = time.monotonic() + 180
    while not list((tmp_path / "ray").glob(".*.work/chunk-0000[3-9].json")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 60
    while left := set(ray_processes()) - set(before):
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.2)
    (work,) = (tmp_path / "ray").glob(".*.work")
    done = {file.name: file.stat().st_mtime_ns for file in work.glob("train-*.ds")}
    assert 3 < len(done) < len(local.shards("train"))
    found = prepare(mine, TOKENIZER)
    assert contents(found) == contents(local)
    kept = {file.name: file.stat().st_mtime_ns for file in found.directory.glob("train-*.ds")}
    assert sum(kept[name] == stamp for name, stamp in done.items()) >= len(done) - 1, "done again"
