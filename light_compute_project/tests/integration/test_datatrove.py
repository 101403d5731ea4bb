"""datatrove's local executor gives the bytes of the local engine, after any kill; MinHash leaves one of each kind.

Nightly: it installs datatrove's environment.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.data.prepare import PreparedData, prepare
from litgpt_core.data.stream.datatrove_engine import VARIABLE, datatrove_python
from litgpt_core.data.stream_settings import RowsSettings
from litgpt_core.tokenizers.registry import load
from litgpt_core.tokenizers.settings import SubwordSettings

pytestmark = [pytest.mark.nightly, pytest.mark.serial, pytest.mark.timeout(900)]
TOKENIZER = SubwordSettings(kind="bpe", vocab_size=400)


@pytest.fixture(scope="module", autouse=True)
def datatrove(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Its environment, made once."""
    try:
        python = datatrove_python(tmp_path_factory.mktemp("engine"))
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))
    os.environ[VARIABLE] = str(python)
    yield
    del os.environ[VARIABLE]


def text(rng: random.Random, words: int) -> str:
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=rng.randrange(2, 9))) for _ in range(words))


def write_corpus(folder: Path, texts: list[str], *, files: int = 4) -> Path:
    folder.mkdir()
    for number in range(files):
        rows = [json.dumps({"text": each}) for each in texts[number::files]]
        (folder / f"{number}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def settings(folder: Path, cache: str, **changes: Any) -> RowsSettings:
    values = {"path": str(folder), "cache_dir": str(folder.parent / cache), "chunk_bytes": 30_000, "workers": 2}
    return RowsSettings(**{"val_fraction": 0.05, **values, **changes})


def contents(prepared: PreparedData) -> dict[str, bytes]:
    names = ("*.ds", "*.index", "manifest.json", "tokenizer/*")
    return {file.name: file.read_bytes() for name in names for file in prepared.directory.glob(name)}


def test_the_bytes_are_those_of_the_local_engine_also_after_a_kill(tmp_path: Path) -> None:
    rng = random.Random(1)
    folder = write_corpus(tmp_path / "rows", [text(rng, rng.randrange(5, 200)) for _ in range(2000)])
    local = prepare(settings(folder, "local"), TOKENIZER)
    assert len(local.shards("train")) > 20
    script = (
        "from litgpt_core.data.prepare import prepare\nfrom litgpt_core.data.stream_settings import RowsSettings\n"
        "from litgpt_core.tokenizers.settings import SubwordSettings\n"
        f"prepare(RowsSettings(path={str(folder)!r}, cache_dir={str(tmp_path / 'trove')!r}, chunk_bytes=30_000, "
        "workers=1, val_fraction=0.05, engine='datatrove'), SubwordSettings(kind='bpe', vocab_size=400))\n"
    )
    process = subprocess.Popen([sys.executable, "-P", "-c", script], start_new_session=True)
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
    script = (
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
        [os.environ[VARIABLE], "-c", script, str(folder), str(out), str(local.tokenizer_dir / "tokenizer.json")],
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
