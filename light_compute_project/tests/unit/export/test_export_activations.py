"""Activations that `interpret` records, against transformers' hidden states and attentions on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core.checkpoint.load import load_model
from litgpt_core.export.huggingface.importing import import_folder
from litgpt_core.interpret.lens import layer_names
from litgpt_core.interpret.tracing import trace

pytest.importorskip("transformers")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", ["gpt2", "llama3", "mistral", "qwen3", "pythia", "phi", "gemma2", "gemma3"])
def test_residual_streams_and_attention_are_those_of_transformers(
    name: str, make_folder: Callable[..., Any], tmp_path: Path, ids: torch.Tensor
) -> None:
    theirs = make_folder(name)
    import_folder(theirs.path, tmp_path / "imported")
    model = load_model(tmp_path / "imported")
    with torch.no_grad():
        expected = theirs.model(ids, output_hidden_states=True, output_attentions=True)
    with torch.no_grad(), trace(model, [*layer_names(model), "*.pattern", "final", "logits"]) as seen:
        model(ids)
    found = [seen[layer] for layer in layer_names(model)[:-1]] + [seen["final"]]  # theirs end with the normed one
    assert len(found) == len(expected.hidden_states)
    for ours, hidden in zip(found, expected.hidden_states, strict=True):
        torch.testing.assert_close(ours, hidden, rtol=1e-4, atol=1e-5 * float(hidden.abs().max()))
    for layer, weights in enumerate(expected.attentions):
        torch.testing.assert_close(seen[f"{layer}.pattern"], weights, rtol=1e-4, atol=1e-6)
