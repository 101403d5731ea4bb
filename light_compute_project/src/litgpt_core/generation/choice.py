"""Chooses the decoder of a model and the dtype of its weights; each choice is logged in one line.

compile   auto    the C++ kernel on a CPU where it supports the model and can be built; else plain PyTorch
          true    torch.compile: compiles for tens of seconds; pays off for long runs of models that the kernel does not
                  support
          false   plain PyTorch
"""

from __future__ import annotations

import difflib
import logging
from typing import TYPE_CHECKING

import torch

from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.core.machine import compile_obstacle, cpu_has_fast_bf16
from litgpt_core.generation.decoder import Decoder
from litgpt_core.generation.kernel import KernelDecoder
from litgpt_core.generation.kernel_build import load_kernel
from litgpt_core.generation.kernel_support import structure_obstacle, weights_obstacle
from litgpt_core.generation.speculation import SPECULATIVE
from litgpt_core.generation.torch_decoder import TorchDecoder

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT

logger = logging.getLogger(__name__)

COMPILE = ("auto", "true", "false")
KV_CACHE = ("auto", "int8")


def check_compile(word: str) -> str:
    """Returns `word` if it is one of COMPILE; raises ConfigError with the nearest one otherwise."""
    if word not in COMPILE:
        near = difflib.get_close_matches(word, COMPILE, n=1) or ["auto"]
        raise ConfigError(f"There is no compile={word!r}.", needed=", ".join(COMPILE), fix=f"--compile {near[0]}")
    return word


def check_options(compile: str, kv_cache: str, speculative: str = "off") -> None:
    """Raise ConfigError for a word that is not one of COMPILE, KV_CACHE or SPECULATIVE."""
    check_compile(compile)
    if speculative not in SPECULATIVE:
        needed = ", ".join(SPECULATIVE)
        raise ConfigError(f"There is no speculative={speculative!r}.", needed=needed, fix="--speculative ngram")
    if kv_cache not in KV_CACHE:
        raise ConfigError(f"There is no kv_cache={kv_cache!r}.", needed=", ".join(KV_CACHE), fix="--kv_cache int8")


def choose_decoder(
    model: GPT,
    *,
    compile: str = "auto",
    packed_weights: bool = False,
    kv_cache: str = "auto",
    speculative: str = "off",
) -> Decoder:
    """The decoder for this model on its present device; `packed_weights` is an option of the CPU kernel.

    Args:
        model: In its dtype.
        compile: One of COMPILE.
        packed_weights: See `kernel`.
        kv_cache: One of KV_CACHE; int8: keys and values in 8 bits with a scale per token and head.
        speculative: One of SPECULATIVE; a warning says that a decoder cannot verify drafts.

    Raises:
        ConfigError: A word is not one of those.
        EnvironmentProblem: compile="true" where torch.compile cannot work.
    """
    check_options(compile, kv_cache, speculative)
    decoder = _choose(model, compile=compile, packed_weights=packed_weights, kv_cache=kv_cache)
    if speculative != "off" and not decoder.tokens_are_independent:
        logger.warning("speculative decoding is off: it needs the CPU kernel, not the %s decoder", decoder.name)
    return decoder


def _choose(model: GPT, *, compile: str, packed_weights: bool, kv_cache: str) -> Decoder:
    device = model.device
    what = f"{device}, {str(model.dtype).removeprefix('torch.')}"
    what += ", int8 KV cache" if kv_cache == "int8" else ""
    if compile == "true":
        if obstacle := compile_obstacle(device.type):
            raise EnvironmentProblem(f"Decoding cannot be compiled: {obstacle}.", fix="--compile auto")
        logger.info("decoding on %s by torch.compile (as requested); the first token compiles it", what)
        return TorchDecoder(model, compiled=True, kv_cache=kv_cache)
    if compile == "false":
        logger.info("decoding on %s by plain PyTorch (as requested)", what)
        return TorchDecoder(model, kv_cache=kv_cache)
    obstacle = weights_obstacle(model) or kernel_problem(model)
    if obstacle is None:
        threads = torch.get_num_threads()
        logger.info("decoding on %s by the CPU kernel, %d thread%s", what, threads, "" if threads == 1 else "s")
        return KernelDecoder(model, packed_weights=packed_weights, kv_cache=kv_cache)
    logger.info("decoding on %s by plain PyTorch; not by the CPU kernel: %s", what, obstacle)
    return TorchDecoder(model, kv_cache=kv_cache)


def kernel_problem(model: GPT) -> str | None:
    """Why the kernel cannot run this architecture on this machine, or None. Builds the kernel if necessary."""
    if obstacle := structure_obstacle(model):
        return obstacle
    try:
        load_kernel()
    except EnvironmentProblem as problem:
        return problem.given
    return None


def load_dtype(model: GPT, *, device: torch.device) -> torch.dtype:
    """The dtype that `auto` loads the weights in: bfloat16 where that is fast, else as stored.

    Decoding reads every weight for every token, so half the bytes can be twice as fast. Without the kernel, a CPU
    without hardware bfloat16 computes in float32.
    """
    stored = model.dtype
    if stored == torch.bfloat16:
        return stored
    if device.type == "cpu":
        fast = kernel_problem(model) is None or cpu_has_fast_bf16()
        chosen = torch.bfloat16 if fast else torch.float32
    elif device.type == "cuda" and stored == torch.float32 and torch.cuda.is_bf16_supported(including_emulation=False):
        chosen = torch.bfloat16
    else:
        chosen = stored
    if chosen != stored:
        names = [str(dtype).removeprefix("torch.") for dtype in (stored, chosen)]
        logger.info("loading %s weights as %s (use --precision 32 for full precision)", *names)
    return chosen
