"""Parsing of the device and precision options."""

import pytest
import torch

from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.generation.hardware import choose_device, named_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("auto", None), ("bf16", torch.bfloat16), ("32-true", torch.float32), ("16", torch.float16)],
)
def test_the_dtype(name, expected):
    assert named_dtype(name) == expected


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="bf16"):
        named_dtype("bf61")
    with pytest.raises(ConfigError, match="'gpu'"):
        choose_device("gpu")
    assert choose_device("cpu") == CPU
    with pytest.raises(EnvironmentProblem, match="--device cpu"):
        choose_device("cuda:99")
