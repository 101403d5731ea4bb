"""`model=pretrained tokenizer=pretrained`: what is requested, what is found, and what may differ from the directory."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import checkpoint, tokenizers
from litgpt_core.checkpoint.layout import TOKENIZER_FILES
from litgpt_core.config.compose import load
from litgpt_core.core.errors import CheckpointError, ConfigError, LightComputeError
from litgpt_core.data.prepare import prepare
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.training.pretrained import find_pretrained

RNG = random.Random(0)
WORDS = ["".join(RNG.choices("etaoinshrdlu", k=RNG.randint(2, 7))) for _ in range(200)]
TEXT = "\n".join(" ".join(RNG.choices(WORDS, k=8)) for _ in range(400))
BOTH = ["model=pretrained", "tokenizer=pretrained"]


@pytest.fixture
def directory(tmp_path: Path) -> Callable[..., Path]:
    """`directory(**settings)`: a checkpoint in tmp_path/run/final, with a tokenizer and its chat template."""

    def make(**settings: Any) -> Path:
        folder = tmp_path / "tokenizer"
        tokenizer = tokenizers.train(tokenizers.SubwordSettings(kind="bpe", vocab_size=300), [TEXT])
        tokenizer.save(folder)
        (folder / "chat_template.jinja").write_text("{{ messages }}")
        sizes = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 32, "vocab_size": 300, "padding_multiple": 64}
        model = GPT(GPTConfig(**(sizes | settings)))
        initialize(model, seed=1)
        return checkpoint.save_directory(
            tmp_path / "run" / "final",
            weights=model.state_dict(),
            config=model.config,
            tokenizer_dir=folder,
            hyperparameters={},
        )

    return make


def problem(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(overrides)
    return str(caught.value)


def test_both_paths_are_what_init_from_names_unless_they_are_given() -> None:
    config = load([*BOTH, "init_from=a"])
    assert (config.model.path, config.tokenizer.path) == ("a", "a")
    config = load([*BOTH, "init_from=a", "model.path=b", "tokenizer.path=c"])
    assert (config.model.path, config.tokenizer.path) == ("b", "c")
    message = problem(*BOTH)
    assert "model.path is missing" in message and "tokenizer.path is missing" in message and "init_from=DIR" in message


def test_what_would_have_no_effect_is_refused() -> None:
    message = problem("model=pretrained", "init_from=a", "model.n_layer=3", "model.bias=true")
    assert "model.n_layer cannot be set" in message and "model.bias cannot be set" in message
    assert "command line: model.n_layer=3" in message
    assert "model.path has no effect" in problem("model=tiny", "model.path=a")
    assert "unknown setting tokenizer.vocab_size" in problem(*BOTH, "init_from=a", "tokenizer.vocab_size=9")
    assert "needed fields, registry or pretrained" in problem("model.source=elsewhere")
    assert "model.block_size='long'" in problem("model=pretrained", "init_from=a", "model.block_size=long")


def test_the_model_is_the_directorys_and_its_context_may_be_shorter(directory: Any, tmp_path: Path) -> None:
    final = directory(n_query_groups=1, tie_embeddings=True)
    found = find_pretrained(load([*BOTH, f"init_from={tmp_path / 'run'}", "model.block_size=16", "model.dropout=0.1"]))
    assert Path(str(found.model.path)) == Path(str(found.tokenizer.path)) == final, "a run folder means its final/"
    built = found.model.build(vocab_size=300)
    there = GPTConfig.from_checkpoint(final)
    assert (built.block_size, built.dropout, built.tie_embeddings) == (16, 0.1, True)
    same = dataclasses.replace(built, block_size=32, dropout=0.0, tie_embeddings=False)
    assert same == dataclasses.replace(there, vocab_size=300)
    assert (there.padded_vocab_size, built.padded_vocab_size) == (320, 320)
    assert (
        not find_pretrained(load([*BOTH, f"init_from={final}", "model.tie_embeddings=false"]))
        .model.build(vocab_size=300)
        .tie_embeddings
    )


def test_what_does_not_fit_the_directory_is_refused(directory: Any, tmp_path: Path) -> None:
    final = directory()
    with pytest.raises(ConfigError, match=r"block_size=64.*32 tokens"):
        find_pretrained(load([*BOTH, f"init_from={final}", "model.block_size=64"])).model.build(vocab_size=300)
    with pytest.raises(ConfigError, match=r"321 ids.*320 rows"):
        find_pretrained(load([*BOTH, f"init_from={final}"])).model.build(vocab_size=321)
    with pytest.raises(CheckpointError, match="does not exist"):
        find_pretrained(load([*BOTH, f"init_from={tmp_path / 'nowhere'}"]))


def test_a_shape_without_weights_is_said(directory: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    final = directory()
    find_pretrained(load(["model=pretrained", "tokenizer=byte", f"model.path={final}"]))
    assert "fresh weights" in caplog.text
    caplog.clear()
    find_pretrained(load([*BOTH, f"init_from={final}"]))
    assert not caplog.text


def test_data_is_prepared_with_the_very_tokenizer_and_what_lies_beside_it(directory: Any, tmp_path: Path) -> None:
    final = directory()
    (tmp_path / "text.txt").write_text(TEXT)
    arguments = [*BOTH, "data=text", f"data.path={tmp_path / 'text.txt'}", f"data.cache_dir={tmp_path / 'cache'}"]
    config = find_pretrained(load([*arguments, f"init_from={final}"]))
    data = prepare(config.data, config.tokenizer)
    theirs = tokenizers.load(final)
    assert tokenizers.load(data.tokenizer_dir).fingerprint() == theirs.fingerprint()
    assert (data.vocab_size, data.eos_id) == (300, theirs.eos_id)
    assert (data.tokenizer_dir / "chat_template.jinja").is_file()

    copy = final.rename(tmp_path / "moved")
    again = prepare(config.data, find_pretrained(load([*arguments, f"init_from={copy}"])).tokenizer)
    assert again.directory == data.directory, "the tokenizer decides, not where it lies"
    other = tokenizers.train(tokenizers.SubwordSettings(kind="bpe", vocab_size=301), [TEXT])
    other.save(tmp_path / "other")
    config = find_pretrained(load([*arguments, f"init_from={copy}", f"tokenizer.path={tmp_path / 'other'}"]))
    assert prepare(config.data, config.tokenizer).directory != data.directory


def test_a_path_that_holds_no_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LightComputeError, match="holds no"):
        find_pretrained(load(["tokenizer=pretrained", f"tokenizer.path={tmp_path}"]))


def test_learned_positions_beyond_a_shorter_context_are_left_out(directory: Any) -> None:
    final = directory(position_embedding="learned", parallel_residual=False)
    shorter = GPT(dataclasses.replace(GPTConfig.from_checkpoint(final), block_size=16))
    checkpoint.load_into(shorter, final)
    ids = torch.arange(16)[None]
    assert torch.equal(shorter(ids), checkpoint.load_model(final)(ids))
    longer = GPT(dataclasses.replace(GPTConfig.from_checkpoint(final), block_size=48))
    with pytest.raises(CheckpointError, match=r"wpe\.weight \(32, 16\) instead of \(48, 16\)"):
        checkpoint.load_into(longer, final)


def test_companions_travel_with_a_checkpoint_too() -> None:
    assert {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja"} <= set(TOKENIZER_FILES)
    assert len(TOKENIZER_FILES) == len(set(TOKENIZER_FILES)) == 11
