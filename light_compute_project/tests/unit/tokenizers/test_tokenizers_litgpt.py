"""LitGPT's own Tokenizer reads every directory and gives the ids and the text that ours gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.settings import KINDS

pytestmark = pytest.mark.parity

SAMPLES = [
    "def f(x):\n    return x + 1\n\n\nclass A:\n\tpass\r\n",
    " leading and trailing  ",
    "a  b",
    "x",
    "Grüße, 世界!",
]


@pytest.mark.parametrize("kind", KINDS)
def test_litgpt_encodes_and_decodes_as_we_do(
    trained: dict[str, Tokenizer], python_documents: list[str], tmp_path: Path, kind: str
) -> None:
    from litgpt.tokenizer import Tokenizer as Upstream

    ours = trained[kind]
    ours.save(tmp_path)
    upstream = Upstream(tmp_path)
    assert upstream.vocab_size == ours.vocab_size
    assert (upstream.bos_id, upstream.eos_id) == (ours.bos_id, ours.eos_id)
    assert not upstream.use_bos and not upstream.apply_decoding_fix
    for text in [*SAMPLES, *python_documents[:5]]:
        ids = ours.encode(text)
        assert upstream.encode(text).tolist() == ids
        assert upstream.decode(torch.tensor(ids)) == text == ours.decode(ids)
        assert upstream.encode(text, eos=True).tolist() == [*ids, ours.eos_id]


@pytest.mark.parametrize("kind", KINDS)
def test_litgpt_streams_token_by_token_as_we_do(trained: dict[str, Tokenizer], tmp_path: Path, kind: str) -> None:
    from litgpt.tokenizer import Tokenizer as Upstream

    trained[kind].save(tmp_path)
    text = "def f(x):\n    return x  # one two\n"
    ids = trained[kind].encode(text)
    assert "".join(Upstream(tmp_path).decode_stream(torch.tensor(token_id) for token_id in ids)) == text
