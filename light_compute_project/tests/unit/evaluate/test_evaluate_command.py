"""`lcp evaluate` in this process, on two small runs that lie on their data: files, tables, comparisons, errors."""

import json
import math
import shutil
from pathlib import Path

import pytest
import yaml

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.core.errors import ConfigError, DataError, LightComputeError
from litgpt_core.data.prepare import open_prepared, prepare
from litgpt_core.data.settings import TextSettings
from litgpt_core.evaluate import command
from litgpt_core.evaluate.ngram_scorer import NgramScorer
from litgpt_core.evaluate.run_data import RunData, data_of
from litgpt_core.evaluate.table import cautions
from litgpt_core.evaluate.text_score import score_texts, total_bits_per_byte

LINES = (
    "def f{n}(value):\n    total = value + {n}\n    if total > 9:\n        return total\n    return (value, {n})\n\n"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_scorer) -> Path:
    """Two runs and their prepared data; `data/` is found below the folder `working_folder` returns."""
    root = tmp_path_factory.mktemp("place")
    corpus = root / "corpus"
    corpus.mkdir()
    for number in range(40):
        text = "".join(LINES.format(n=number * 31 + i) for i in range(8))
        own = "total_" + "abcdefgh"[number // 8] + "abcdefgh"[number % 8]  # a name that only this file has
        (corpus / f"{number}.py").write_text(text.replace("total", own))
    settings = TextSettings(path=str(corpus), glob="*.py", cache_dir=str(root / "data"), val_fraction=0.3)
    prepared = prepare(settings, tokenizers.ByteSettings())
    for name, seed in (("a", 3), ("b", 4)):
        run = root / "runs" / name
        scorer = make_scorer(seed=seed, block_size=512)
        for step in ("checkpoints/step-00000010", "final"):
            save_directory(
                run / step,
                weights=scorer.model.state_dict(),
                config=scorer.model.config,
                tokenizer_dir=prepared.tokenizer_dir,
                hyperparameters={},
            )
        (run / "config.yaml").write_text(yaml.safe_dump({"data": {"name": "text", "cache_dir": str(root / "data")}}))
        (run / "environment.json").write_text(json.dumps({"data_fingerprint": prepared.fingerprint}))
    return root


@pytest.fixture(scope="module")
def records(place: Path) -> dict[str, dict]:
    """Both runs compared on everything; the files that are left."""
    (place / "extra.txt").write_text("one more text")
    assert (
        command.main(
            [f"{place}/runs/a", f"{place}/runs/b", "--suite", "all", "--limit", "10", "--out", f"{place}/report.html"]
        )
        == 0
    )
    return {name: json.loads((place / "runs" / name / "evaluation" / "final.json").read_text()) for name in "ab"}


def test_every_number_has_its_error_and_references(records: dict[str, dict]) -> None:
    a = records["a"]
    assert {"python_pairs", "induction"} <= set(a["suites"])
    for suite in a["suites"].values():
        assert suite["n"] == len(suite["items"]) and suite["clusters"] > 1
        assert 0 <= suite["accuracy"]["value"] <= 1 and suite["accuracy"]["se"] > 0
        assert {"unigram", "bigram"} == set(suite["references"])
        assert suite["contaminated"] is not None
    assert set(a["bytes"]["references"]) >= {"xz", "unigram", "bigram"}
    assert math.isclose(
        a["bytes"]["bits_per_byte"],
        sum(sum(text["blocks"]) for text in a["bytes"]["texts"]) / a["bytes"]["n_bytes"],
        rel_tol=1e-4,
    )
    assert a["weights_sha256"] != records["b"]["weights_sha256"]
    assert {"git", "versions", "device", "command", "seconds", "seed"} <= set(a)


def test_what_numbers_do_not_say_is_said(place: Path, records: dict[str, dict]) -> None:
    """Scores whose interval holds chance; random weights know nothing."""
    said = cautions(list(records.values()))
    assert [line for line in said if line.endswith(": a cannot be told from chance")]
    page, beside = (
        (place / "report.html").read_text(),
        (place / "runs" / "a" / "evaluation" / "evaluation.md").read_text(),
    )
    assert "What these numbers do not say" in page and "cannot be told from chance" in beside
    sure = {**records["a"], "suites": {"python_pairs": {**records["a"]["suites"]["python_pairs"], "chance": -5.0}}}
    assert cautions([sure]) == []


def test_both_models_have_the_same_items(records: dict[str, dict]) -> None:
    for suite, found in records["a"]["suites"].items():
        assert found["items_sha256"] == records["b"]["suites"][suite]["items_sha256"]


def test_the_bigram_model_has_its_analytic_loss(place: Path, records: dict[str, dict]) -> None:
    """Documents are scored from the end-of-document id on, as the prepared folder's reference loss does in one go."""
    prepared = open_prepared(next((place / "data").glob("text-*")))
    data = RunData(prepared)
    scores = score_texts(data.ngrams[1], data.documents)
    assert math.isclose(total_bits_per_byte(scores), records["a"]["bytes"]["references"]["bigram"])
    nats = sum(score.bits for score in scores) * math.log(2)
    ends = len(data.documents)  # the reference also predicts the ids that end documents, but not the first token
    assert abs(nats / (prepared.val_tokens - ends) - prepared.references["bigram"]) < 0.05
    assert isinstance(data.ngrams[0], NgramScorer)


def test_the_held_out_text_is_that_of_the_files(place: Path) -> None:
    data = data_of(place / "runs" / "a" / "final")
    assert data is not None
    files = {path.read_text() for path in (place / "corpus").glob("*.py")}
    assert {document.text for document in data.documents} < files


def test_the_page_is_one_file_with_everything(place: Path, records: dict[str, dict]) -> None:
    page = (place / "report.html").read_text()
    assert "data:image/png;base64," in page and "http" not in page.split("<body>")[0]
    assert 'src="http' not in page and "href=" not in page
    assert "indistinguishable" in page or "is better than" in page
    for name in ("evaluation.md", "evaluation.png"):
        assert (place / "runs" / "b" / "evaluation" / name).stat().st_size > 300
    assert "python_pairs" in (place / "runs" / "a" / "evaluation" / "evaluation.md").read_text()


def test_a_model_beside_itself_is_indistinguishable(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = [f"{place}/runs/a/checkpoints/step-00000010", f"{place}/runs/a/final"]
    command.main([*same, "--suite", "bytes,python_pairs", "--limit", "5", "--text", f"{place}/extra.txt"])
    shown = capsys.readouterr().out
    assert "a 10" in shown and "indistinguishable" in shown and "no difference was measured" in shown
    assert "is better" not in shown


def test_text_of_ones_own_needs_no_data(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--results", str(tmp_path / "results")]
    command.main([f"{place}/runs/a", "--text", f"{place}/extra.txt", "--text", f"{place}/corpus/1.py", *out])
    stored = json.loads((tmp_path / "results" / "final-text.json").read_text())
    assert [text["name"] for text in stored["bytes"]["texts"]] == ["extra.txt", "1.py"] and not stored["suites"]
    shown = capsys.readouterr().out
    assert "extra.txt" in shown and "in training" in shown


def test_a_file_is_compressed_and_restored(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "text.py"
    file.write_bytes(LINES.format(n=5).encode())
    command.main([f"{place}/runs/a", "--compress", str(file)])
    file.unlink()
    command.main([f"{place}/runs/a", "--decompress", f"{file}.lcp"])
    assert file.read_bytes() == LINES.format(n=5).encode()
    assert "bits per byte" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="exists"):
        command.main([f"{place}/runs/a", "--decompress", f"{file}.lcp"])
    with pytest.raises(DataError, match="cannot be read"):
        command.main([f"{place}/runs/a", "--compress", str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "python_pair"], "did you mean python_pairs"),
        (["--suite", "cloze", "--text", "x"], "--suite bytes"),
        (["--limit", "-1"], "--limit -1"),
        (["--out", "page.txt"], r"ends in \.html"),
        (["--text", "none.txt"], "cannot be read"),
        (["--context", "999"], "--context 999"),
        (["--data", "nowhere"], "not a usable prepared folder"),
    ],
)
def test_mistakes_have_one_clear_error(place: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(LightComputeError, match=message):
        command.main([f"{place}/runs/a", *arguments])


def test_a_checkpoint_without_data_says_what_to_give(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(place / "runs" / "a" / "final", copied)
    with pytest.raises(ConfigError, match="nothing to measure"):
        command.main([str(copied), "--suite", "bytes"])
    assert "not part of a run" in caplog.text
