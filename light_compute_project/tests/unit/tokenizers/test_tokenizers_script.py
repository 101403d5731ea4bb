"""`scripts/train_tokenizer.py` trains, saves and reports; help is instant; mistakes are messages, not tracebacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from litgpt_core.core.errors import DataError, TokenizerError
from litgpt_core.tokenizers import load
from litgpt_core.tokenizers.report import find_text_files, read_documents, settings_for, train_and_report

PROJECT = Path(__file__).resolve().parents[3]
SCRIPT = PROJECT / "scripts" / "train_tokenizer.py"
YAML_FOLDER = PROJECT / "configs" / "tokenizer"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own."""
    code = f"import sys, runpy; sys.path.insert(0, {str(PROJECT / 'src')!r}); sys.argv = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", code, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_it_trains_saves_and_reports(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("the cat sat on the mat, the dog too\n" * 40, encoding="utf-8")
    (tmp_path / "texts" / "ignored.bin").write_bytes(b"\xff\xfe")
    done = run("--kind", "bpe", "--vocab_size", "270", "--out", str(tmp_path / "out"), str(tmp_path / "texts"))
    assert done.returncode == 0, done.stderr
    for words in ("vocabulary size   270", "bytes per token", "sample", "seconds", "next"):
        assert words in done.stdout
    assert load(tmp_path / "out").vocab_size == 270


def test_help_loads_no_tokenizer_library() -> None:
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(PROJECT / 'src')!r}); sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit: print(sorted({'torch', 'numpy', 'tokenizers', 'sentencepiece'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "FILE_OR_FOLDER" in done.stdout and done.stdout.rstrip().endswith("[]")


def test_a_mistake_is_a_message_and_exit_code_2(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path / "out"), str(tmp_path / "absent"))
    assert done.returncode == 2
    assert "does not exist" in done.stderr and "Traceback" not in done.stderr


def test_a_tokenizer_replaces_only_one_made_here_and_never_that_of_a_model(tmp_path: Path) -> None:
    text, out = tmp_path / "a.txt", tmp_path / "out"
    text.write_text("the cat sat on the mat\n" * 20, encoding="utf-8")

    def train(kind: str, *, force: bool = False) -> None:
        train_and_report(
            settings_for(kind, vocab_size=260, max_train_bytes=None, seed=1), [text], directory=out, force=force
        )

    train("bpe")
    with pytest.raises(TokenizerError, match="--force"):
        train("char")
    assert load(out).kind == "bpe"
    train("char", force=True)
    assert load(out).kind == "char"
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    for name in ("lit_model.pth", "model_config.yaml", "model-00001-of-00002.safetensors"):
        (out / name).write_text("weights")
        with pytest.raises(TokenizerError, match=f"holds a model: {name}"):
            train("char", force=True)
        with pytest.raises(TokenizerError, match="holds a model"):
            load(out).save(out)
        (out / name).unlink()
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    (out / "tokenizer_config.json").write_text("{}")
    with pytest.raises(TokenizerError, match="a tokenizer that this project did not make"):
        train("char", force=True)


def test_files_are_found_in_order_and_bad_ones_are_named(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", "c.rst"):
        (tmp_path / name).write_bytes(b"line\r\nnext")
    assert [file.name for file in find_text_files([tmp_path])] == ["a.txt", "b.md"]
    assert [file.name for file in find_text_files([tmp_path], patterns=["*.rst"])] == ["c.rst"]
    assert list(read_documents([tmp_path / "c.rst"])) == ["line\r\nnext"]
    with pytest.raises(DataError, match="no file that matches"):
        find_text_files([tmp_path], patterns=["*.nothing"])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"latin\.txt is not UTF-8: byte offset 3"):
        list(read_documents([tmp_path / "latin.txt"]))


def test_every_shipped_yaml_is_valid_settings() -> None:
    import yaml

    from litgpt_core.tokenizers.settings import KINDS, ByteSettings, CharSettings, PretrainedSettings, SubwordSettings

    kinds = {"char": CharSettings, "byte": ByteSettings, "pretrained": PretrainedSettings}
    files = sorted(YAML_FOLDER.glob("*.yaml"))
    assert sorted(file.stem for file in files) == sorted([*KINDS, "pretrained"])
    for file in files:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert kinds.get(file.stem, SubwordSettings)(**content).kind == file.stem
