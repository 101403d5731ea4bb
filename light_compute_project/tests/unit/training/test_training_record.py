from __future__ import annotations

import hashlib
import json
from pathlib import Path

from litgpt_core.config.diff import computing_sha256
from litgpt_core.training.record import data_facts, init_from_facts, keep_diff, tokenizer_facts
from litgpt_core.training.run_folder import RunFolder, is_used

META = {
    "name": "text",
    "fingerprint": "f" * 64,
    "corpus_sha256": "c" * 64,
    "split": {"sha256": "s" * 64},
    "splits": {"train": {"sha256": "t" * 64, "tokens": 90}, "val": {"sha256": "v" * 64, "tokens": 10}},
    "tokenizer": {"kind": "char", "vocab_size": 65, "fingerprint": "k" * 64, "files": {"tokenizer.json": "j" * 64}},
}


def test_data_and_tokenizer_are_recorded_by_their_hashes() -> None:
    found = data_facts(META)
    assert [found[key][0] for key in ("fingerprint", "corpus_sha256", "split_sha256")] == ["f", "c", "s"]
    assert (found["train_sha256"][0], found["val_sha256"][0], found["train_tokens"], found["val_tokens"]) == (
        "t",
        "v",
        90,
        10,
    )
    assert tokenizer_facts(META) == META["tokenizer"]
    chat = data_facts({"name": "chat", "fingerprint": "f"})
    assert chat["fingerprint"] == "f" and chat["corpus_sha256"] is None, "conversations have no split of a corpus"


def test_the_diff_of_an_earlier_session_is_kept_under_its_hash(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    keep_diff(folder, "")
    assert not folder.code_diff.exists()
    keep_diff(folder, "first ä\n")
    keep_diff(folder, "first ä\n")
    assert [path.name for path in tmp_path.iterdir()] == ["code.diff"]
    keep_diff(folder, "second\n")
    old = tmp_path / f"code-{hashlib.sha256('first ä'.encode() + bytes([10])).hexdigest()[:12]}.diff"
    assert folder.code_diff.read_text() == "second\n" and old.read_text(encoding="utf-8") == "first ä\n"
    keep_diff(folder, "")
    assert not folder.code_diff.exists(), "the code is committed by now"
    assert len(list(tmp_path.glob("code-*.diff"))) == 2


def test_a_start_that_failed_early_does_not_occupy_the_folder(tmp_path: Path) -> None:
    keep_diff(RunFolder(tmp_path), "a change\n")
    assert not is_used(tmp_path)


def test_where_a_run_starts_from_is_known_by_the_hash_of_its_weights(tmp_path: Path) -> None:
    for name in ("lit_model.pth", "model_config.yaml", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    assert init_from_facts(tmp_path)["weights_sha256"] is None
    (tmp_path / "checksums.json").write_text(json.dumps({"lit_model.pth": {"bytes": 2, "sha256": "w" * 64}}))
    assert init_from_facts(tmp_path) == {"directory": str(tmp_path), "weights_sha256": "w" * 64}
    assert init_from_facts(tmp_path / "absent")["weights_sha256"] is None


def test_the_hash_of_the_settings_is_that_of_what_is_computed() -> None:
    plain = {"seed": 1, "run": {"name": "a"}, "logger": {"kind": "none"}, "optim": {"lr": 1e-3}}
    same = {"optim": {"lr": 1e-3}, "seed": 1, "run": {"name": "b"}, "logger": {"kind": "csv"}}
    assert computing_sha256(plain) == computing_sha256(same) != computing_sha256({**plain, "optim": {"lr": 2e-3}})
