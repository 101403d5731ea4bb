"""The decoder and the dtype are chosen by rule, and logged in one line."""

import logging

import pytest
import torch

from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.generation import choice
from litgpt_core.generation.choice import choose_decoder, load_dtype
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.kernel import KernelDecoder
from litgpt_core.generation.sampling import GREEDY
from litgpt_core.generation.torch_decoder import TorchDecoder
from litgpt_core.generation.weight_memory import move_to_huge_pages

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _listen(caplog):
    caplog.set_level(logging.INFO, logger="litgpt_core")


@pytest.mark.usefixtures("kernel")
def test_auto_uses_the_kernel_where_supported(build, caplog):
    assert isinstance(choose_decoder(build()), KernelDecoder)
    assert [record.message for record in caplog.records] == ["decoding on cpu, float32 by the CPU kernel, 1 thread"]


def test_auto_logs_why_it_does_not(build, caplog):
    assert isinstance(choose_decoder(build().to(torch.float16)), TorchDecoder)
    assert [record.message for record in caplog.records] == [
        "decoding on cpu, float16 by plain PyTorch; not by the CPU kernel: "
        "it needs all weights on the CPU in one dtype, float32 or bfloat16"
    ]


def test_false_is_plain_pytorch(build, caplog):
    decoder = choose_decoder(build(), compile="false")
    assert (type(decoder), decoder.name) == (TorchDecoder, "eager")
    assert caplog.records[-1].message == "decoding on cpu, float32 by plain PyTorch (as requested)"


def test_other_values_are_refused_before_loading(build, tokenizer, tmp_path):
    with pytest.raises(ConfigError, match="--compile true"):
        Engine(build(), tokenizer, compile="tru")
    with pytest.raises(ConfigError, match="'yes'"):
        Engine.from_directory(tmp_path / "nothing", compile="yes")


@pytest.mark.parametrize(
    ("stored", "kernel", "hardware", "expected"),
    [
        (torch.float32, True, False, torch.bfloat16),
        (torch.float32, False, True, torch.bfloat16),
        (torch.float32, False, False, torch.float32),
        (torch.float16, False, False, torch.float32),
        (torch.bfloat16, False, False, torch.bfloat16),
    ],
)
def test_bf16_where_it_is_fast(build, monkeypatch, caplog, stored, kernel, hardware, expected):
    monkeypatch.setattr(choice, "kernel_problem", lambda model: None if kernel else "no")
    monkeypatch.setattr(choice, "cpu_has_fast_bf16", lambda: hardware)
    assert load_dtype(build().to(stored), device=CPU) == expected
    assert len(caplog.records) == (stored != expected), "only rounding is logged"


def test_a_gpu_loads_bf16_where_supported(build, monkeypatch):
    for has_it in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has_it=has_it: has_it)
        assert load_dtype(build(), device=CUDA) == (torch.bfloat16 if has_it else torch.float32)
        assert load_dtype(build().to(torch.float16), device=CUDA) == torch.float16


def test_weights_in_huge_pages_are_equal_and_stay_tied(build):
    model = build(tie_embeddings=True)
    before = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    move_to_huge_pages(model, dtype=torch.bfloat16)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert model.lm_head.weight is model.transformer.wte.weight
    addresses = sorted(parameter.data_ptr() for parameter in model.parameters())
    assert all(address % 4096 == addresses[0] % 4096 for address in addresses)
    total = sum(-(-parameter.numel() * 2 // 4096) * 4096 for parameter in model.parameters())
    assert addresses[-1] - addresses[0] < total, "one block"


def test_compiled_is_eager_and_compiled_once(build, tokenizer, monkeypatch):
    """Two sequences of unequal lengths that slide: one graph serves every step of both."""
    from torch._dynamo.testing import CompileCounter

    counter, compile_it = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, **settings: compile_it(step, backend=counter, **settings))
    monkeypatch.setattr(choice, "compile_obstacle", lambda device: None)
    model = build(n_layer=1, sliding_window_size=9)
    settings = {"max_new_tokens": 30, "sampling": GREEDY, "stop_ids": ()}
    prompts = ([65, 66, 67], [9])
    expected = [Engine(model, tokenizer, compile="false").generate(prompt, **settings) for prompt in prompts]
    engine = Engine(model, tokenizer, compile="true")
    assert [engine.generate(prompt, **settings) for prompt in prompts] == expected
    assert counter.frame_count == 1


def test_compiling_needs_a_compiler(build, monkeypatch):
    monkeypatch.setattr(choice, "compile_obstacle", lambda device: "no C++ compiler found (g++)")
    with pytest.raises(EnvironmentProblem, match="no C") as caught:
        choose_decoder(build(), compile="true")
    assert caught.value.fix == "--compile auto"
