"""Parses device and precision options into torch.device and torch.dtype."""

from __future__ import annotations

import difflib

import torch

from litgpt_core.core.errors import ConfigError, EnvironmentProblem

DTYPES = {
    "32": torch.float32,
    "32-true": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bf16-true": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "16": torch.float16,
    "16-true": torch.float16,
    "float16": torch.float16,
}


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA if available, else Apple's MPS, else the CPU; any other name is used as given.

    Raises:
        ConfigError: No such device name.
        EnvironmentProblem: This machine, or this torch, lacks the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as problem:
        raise ConfigError(f"There is no device called {name!r}.", needed="auto, cpu, cuda, cuda:1 or mps") from problem
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EnvironmentProblem(
            f"{name} was requested, but torch {torch.__version__} finds {torch.cuda.device_count()} CUDA devices.",
            needed="an NVIDIA GPU, its driver and a CUDA build of torch",
            fix="--device cpu",
        )
    if device.type == "mps" and not torch.mps.is_available():
        raise EnvironmentProblem("mps was requested, but it is not available here.", fix="--device cpu")
    return device


def named_dtype(name: str) -> torch.dtype | None:
    """The dtype of that name; None for `auto`, which depends on the model (`choice.load_dtype`).

    Raises ConfigError with the nearest names for an unknown one.
    """
    if name == "auto":
        return None
    if name not in DTYPES:
        near = difflib.get_close_matches(name, DTYPES, n=2)
        raise ConfigError(
            f"There is no precision called {name!r}.",
            needed=f"auto, {', '.join(DTYPES)}",
            fix=f"--precision {near[0]}" if near else "--precision auto",
        )
    return DTYPES[name]
