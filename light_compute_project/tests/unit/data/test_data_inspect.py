"""What `lcp data inspect`, `convert` and `--dry_run` print."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from litgpt_core.cli import main
from litgpt_core.core.errors import ConfigError, DataError
from litgpt_core.data.stream.dry_run import estimate
from litgpt_core.data.stream_settings import RowsSettings
from litgpt_core.tokenizers.settings import ByteSettings, SubwordSettings


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefgh", k=rng.randrange(2, 7))) for _ in range(99)]
    texts = ["".join(f"line {' '.join(rng.choices(words, k=5))}\n" for _ in range(6)) for _ in range(40)]
    texts += [texts[0], texts[2] + "more\n", "Привет мир\n", "中文 字\n"]
    (tmp_path / "in").mkdir()
    rows = [json.dumps({"text": text, "url": "x"}) for text in texts]
    (tmp_path / "in" / "a.jsonl").write_text("\n".join([*rows, '{"n": 1}']))
    return tmp_path / "in"


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    return dict(re.findall(r"^(\S.*?)\s{2,}(.*)$", capsys.readouterr().out, re.MULTILINE))


def test_a_corpus_is_described(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(corpus)]) == 0
    rows = printed(capsys)
    assert rows["looked at"] == "everything" and rows["documents"] == "44"
    assert rows["copies"].startswith("2.27 %") and rows["alike"].startswith("2.27 %")
    for said in ("Latin 99", "Cyrillic", "Cjk"):
        assert said in rows["scripts"]
    assert rows["left out"].startswith("1 rows; the first: a.jsonl, line 45") and rows["sample"].startswith("line ")
    assert main(["data", "inspect", str(corpus), "--max_mb", "0.001"]) == 0
    assert printed(capsys)["looked at"].startswith("the beginnings")
    with pytest.raises(DataError, match="holds no text"):
        main(["data", "inspect", str(corpus), "--text_key", "title"])


def test_prepared_folders_are_described_and_converted(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [
        "data=jsonl",
        f"data.path={corpus}",
        "data.workers=1",
        "tokenizer=byte",
        f"data.cache_dir={tmp_path / 'c'}",
    ]
    assert main(["data", "prepare", *settings, "data.val_fraction=0.2"]) == 0
    folder = printed(capsys)["folder"]
    assert main(["data", "inspect", folder]) == 0
    rows = printed(capsys)
    assert (
        rows["shards"] == "1 train, 1 val"
        and rows["bytes per token"].startswith("0.9")
        and "unigram" in rows["to beat"]
    )
    assert main(["data", "convert", folder, str(tmp_path / "out"), "--to", "llmc"]) == 0
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("to train on it: ")]
    again = line.removeprefix("to train on it: ").split()
    assert main(["data", *again, f"data.cache_dir={tmp_path / 'c'}"]) == 0
    assert printed(capsys)["train"] == rows["train"].partition(" tokens")[0] + " tokens"


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "c"
    settings = ["data=jsonl", f"data.path={corpus}", "tokenizer=byte", f"data.cache_dir={cache}"]
    assert main(["data", *settings, "--dry_run"]) == 0
    rows = printed(capsys)
    assert (
        rows["inputs"].startswith("1 files, 0.0 MB") and rows["chunks"].startswith("1,") and "seconds" in rows["time"]
    )
    assert rows["free"].endswith(f"in {cache}") and not cache.exists()
    with pytest.raises(ConfigError, match="data=python_source"):
        main(["data", "--dry_run"])


def test_the_estimate_follows_the_bytes(corpus: Path, tmp_path: Path) -> None:
    raw = (corpus / "a.jsonl").read_text().rpartition("\n")[0]
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "a.jsonl").write_text("\n".join([raw] * 2000))
    settings = RowsSettings(path=str(tmp_path / "big"), workers=1)
    text = 2000 * sum(len(json.loads(line)["text"].encode()) for line in raw.splitlines())
    found = estimate(settings, ByteSettings())
    assert found.text_bytes == pytest.approx(text, rel=0.02) and found.tokens == pytest.approx(text + 88_000, rel=0.02)
    assert found.disk_bytes == pytest.approx(2 * found.tokens + 8 * 88_000, rel=0.02)
    smaller = estimate(settings, SubwordSettings(kind="bpe", vocab_size=32_000))
    assert 0.1 * text < smaller.tokens < 0.7 * text
