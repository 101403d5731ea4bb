"""`tokenizer.add_bos_token`: training windows, validation, prompts and LitGPT's own commands begin with the same id."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.core.errors import ConfigError
from litgpt_core.data.dataset import IGNORE_INDEX
from litgpt_core.data.prepare import prepare
from litgpt_core.data.settings import TextSettings
from litgpt_core.export.huggingface.sentencepiece_json import tokenizer_json
from litgpt_core.prompts import starts_with_bos
from litgpt_core.pure.vocabulary import read_vocabulary
from litgpt_core.tokenizers.settings import PretrainedSettings, SubwordSettings

TEXT = "".join(f"line {n} of a text that repeats itself a little\n" for n in range(400))


def settings(*, add_bos: bool) -> SubwordSettings:
    return SubwordSettings(kind="sentencepiece", vocab_size=320, add_bos_token=add_bos)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("window-start")
    (found / "a.txt").write_text(TEXT, encoding="utf-8")
    return found


def prepared(folder: Path, *, add_bos: bool):  # type: ignore[no-untyped-def]
    data = TextSettings(path=str(folder / "a.txt"), cache_dir=str(folder / "data"), split="tail")
    return prepare(data, settings(add_bos=add_bos), block_size=16)


def test_rows_begin_with_bos_and_targets_stay_the_texts(folder: Path) -> None:
    plain, with_bos = prepared(folder, add_bos=False), prepared(folder, add_bos=True)
    assert plain.directory != with_bos.directory, "another tokenizer setting is other data"
    assert "bos_id" not in plain.meta["tokenizer"] and with_bos.window_start == 1
    sizes = {"block_size": 16, "seed": 3, "micro_batch_size": 4, "global_batch_size": 4}
    (x, y), (bx, by) = plain.train_batches(**sizes)[2], with_bos.train_batches(**sizes)[2]
    assert torch.equal(y, by) and torch.equal(x[:, 1:], bx[:, 1:])
    assert (bx[:, 0] == 1).all() and not (x[:, 0] == 1).any()


def test_validation_counts_every_token_once_and_fills_up_as_before(folder: Path) -> None:
    plain, with_bos = prepared(folder, add_bos=False), prepared(folder, add_bos=True)
    assert plain.val_targets == with_bos.val_targets
    batches = with_bos.val_batches(block_size=16, batch_size=4)
    rows = [pair for index in range(len(batches)) for pair in zip(*batches[index], strict=True)]
    assert sum(int((y != IGNORE_INDEX).sum()) for _, y in rows) == with_bos.val_targets
    assert all((int(x[0]) == 1) == bool((y != IGNORE_INDEX).any()) for x, y in rows)


def test_the_files_say_so_to_every_reader(folder: Path, tmp_path: Path) -> None:
    from litgpt.tokenizer import Tokenizer as Upstream

    with_bos, plain = (prepared(folder, add_bos=flag).tokenizer_dir for flag in (True, False))
    ours = tokenizers.load(with_bos)
    assert ours.use_bos and ours.bos_id == 1 and starts_with_bos(with_bos) and not starts_with_bos(plain)
    ids = ours.encode("line 7")
    assert Upstream(with_bos).encode("line 7").tolist() == [1, *ids]
    assert Upstream(plain).encode("line 7").tolist() == ids == tokenizers.load(plain).encode("line 7")
    vocabulary = read_vocabulary(with_bos)
    assert [*vocabulary.start, *vocabulary.encode("line 7")] == [1, *ids] and read_vocabulary(plain).start == []
    ours.save(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["add_bos_token"] is True


def test_a_model_that_is_trained_further_keeps_its_window_start(folder: Path) -> None:
    data = TextSettings(path=str(folder / "a.txt"), cache_dir=str(folder / "data"), split="tail")
    first = prepared(folder, add_bos=True)
    again = prepare(data, PretrainedSettings(path=str(first.tokenizer_dir)), block_size=16)
    assert again.window_start == 1
    plain = prepare(data, PretrainedSettings(path=str(prepared(folder, add_bos=False).tokenizer_dir)), block_size=16)
    assert plain.window_start is None and plain.directory != again.directory


def test_transformers_gets_a_template_that_begins_with_it(folder: Path) -> None:
    from tokenizers import Tokenizer as Library

    directory = prepared(folder, add_bos=True).tokenizer_dir
    model = (directory / "tokenizer.model").read_bytes()
    with_bos, plain = (Library.from_str(tokenizer_json(model, add_bos=flag).decode()) for flag in (True, False))
    assert with_bos.encode("line 7").ids == [1, *plain.encode("line 7").ids]


def test_other_kinds_have_no_such_token() -> None:
    with pytest.raises(ConfigError, match="tokenizer=sentencepiece"):
        SubwordSettings(kind="bpe", vocab_size=300, add_bos_token=True)
