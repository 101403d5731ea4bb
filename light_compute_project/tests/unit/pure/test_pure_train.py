"""Names are learned on the tape, and the result is a checkpoint like any other."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model
from litgpt_core.checkpoint.verification import verify
from litgpt_core.core.errors import DataError
from litgpt_core.generation import Engine, SamplingSettings
from litgpt_core.generation.pure_engine import PureEngine
from litgpt_core.pure.checkpoint import save
from litgpt_core.pure.microgpt import encode
from litgpt_core.pure.tape import Tape
from litgpt_core.pure.train import Trained, bigram_loss, logits_of, train


def words(count: int) -> list[str]:
    """Made-up words of syllables, in which the letter before last decides: a table of pairs cannot know it."""
    rng = random.Random(0)
    return ["".join(rng.choice(["ba", "bo", "ki", "ku", "lo", "li"]) * 2 for _ in range(2)) for _ in range(count)]


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(words(400), steps=120, batch_size=2, lr=0.02)


def test_it_beats_a_table_of_pairs(trained: Trained) -> None:
    """On words that it has not seen when their loss is taken: the pattern reaches over more than two letters."""
    last = sum(trained.losses[-20:]) / 20
    assert last < bigram_loss(words(400), trained.letters) - 0.1
    assert trained.losses[0] == pytest.approx(torch.tensor(float(len(trained.letters) + 1)).log().item(), abs=0.3)


def test_equal_seeds_train_equal_models() -> None:
    first, again, other = (train(words(20), steps=3, seed=seed).losses for seed in (1, 1, 2))
    assert first == again != other


def test_a_table_of_pairs_is_counted() -> None:
    """ "ab" and "ac": a, then b or c with ln 2, then the end: 2 ln 2 over six pairs."""
    assert bigram_loss(["ab", "ac"], "abc") == pytest.approx(2 * 0.6931471805599453 / 6)


def test_no_names_are_an_error() -> None:
    with pytest.raises(DataError, match="holds no names"):
        train([])


def test_the_checkpoint_is_the_cores(trained: Trained, tmp_path: Path) -> None:
    """Verified, loaded by torch, with the same logits up to the rounding of weights to float32."""
    save(trained, tmp_path)
    verify(tmp_path)
    model, tokenizer = load_model(tmp_path).double(), tokenizers.load(tmp_path)
    ids = encode("bakilo", trained.letters)
    assert [tokenizer.eos_id, *tokenizer.encode("bakilo"), tokenizer.eos_id] == ids
    ours = torch.tensor(logits_of(Tape(), trained.weights, trained.config, [ids]).data, dtype=torch.float64)
    with torch.no_grad():
        assert float((model(torch.tensor([ids]))[0] - ours).abs().max()) < 1e-5


def test_torch_and_plain_python_write_the_same_words(trained: Trained, tmp_path: Path) -> None:
    save(trained, tmp_path)
    engine, pure = Engine.from_directory(tmp_path, device="cpu", dtype="32", compile="false"), PureEngine(tmp_path)
    sampling = SamplingSettings(temperature=0.7)
    for seed in range(20):
        text = "".join(pure.generate_text_stream("", max_new_tokens=15, sampling=sampling, seed=seed))
        assert text == engine.generate_text("", max_new_tokens=15, sampling=sampling, seed=seed)


def test_a_bare_interpreter_writes_the_same_words(trained: Trained, tmp_path: Path) -> None:
    """`python -S -m litgpt_core.pure`: no site-packages, so nothing but the standard library can be imported."""
    save(trained, tmp_path)
    source = Path(tokenizers.__file__).parents[2]
    command = [sys.executable, "-S", "-m", "litgpt_core.pure", str(tmp_path), "ba", "10", "3"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(source)}, check=False
    )
    assert done.returncode == 0, done.stderr
    sampling = SamplingSettings(temperature=0.8, top_k=50)
    expected = "".join(PureEngine(tmp_path).generate_text_stream("ba", max_new_tokens=10, sampling=sampling, seed=3))
    assert done.stdout == f"ba{expected}\n"


@pytest.mark.parity
def test_litgpt_reads_the_checkpoint(trained: Trained, tmp_path: Path) -> None:
    """Its own config, model and tokenizer; the same logits as the core's."""
    litgpt = pytest.importorskip("litgpt")
    from litgpt.tokenizer import Tokenizer

    save(trained, tmp_path)
    model = litgpt.GPT(litgpt.Config.from_file(tmp_path / "model_config.yaml"))
    model.load_state_dict(torch.load(tmp_path / "lit_model.pth", weights_only=True))
    ids = encode("bakilo", trained.letters)
    assert Tokenizer(tmp_path).encode("bakilo", bos=False, eos=True).tolist() == ids[1:]
    with torch.no_grad():
        core = load_model(tmp_path)(torch.tensor([ids]))
        assert torch.allclose(model(torch.tensor([ids])), core, atol=1e-5)
