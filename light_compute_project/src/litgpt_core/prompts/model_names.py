"""Chooses a prompt style by a model's name, with the rules of litgpt 0.5.13's `model_name_to_prompt_style`."""

from __future__ import annotations

import re

_PATTERNS = (
    ("stablelm-tuned-alpha", "stablelm-alpha"),
    ("stablelm-zephyr-3b", "stablelm-zephyr"),
    ("stablecode-instruct", "stablecode"),
    ("Falcon3.*-Instruct", "falcon3"),
    ("falcon.*-instruct", "falcon"),
    ("Llama-2-7b-chat-hf-function-calling-v2", "llama2-function-calling"),
    ("Llama-2.*-chat", "llama2"),
    ("Llama-3.*-Instruct", "llama3"),
    ("OLMo-2.*-(Instruct|SFT|DPO)", "llama3"),
    ("R1", "r1"),
    ("FreeWilly2", "freewilly2"),
    ("Platypus", "platypus"),
    ("CodeLlama|Mi[sx]tral.*Instruct", "codellama"),
    ("phi-1", "phi-1"),
    ("phi-2", "phi-2"),
    ("Phi-3", "phi-3"),
    ("Phi-4-reasoning", "phi-4-reasoning"),
    ("Phi-4-mini-reasoning", "phi-4-mini-reasoning"),
    ("Phi-4-mini", "phi-4-mini"),
    ("phi-4", "phi-4"),
    ("tiny-llama.*chat", "tinyllama"),
    ("Gemma.*-it", "gemma"),
    ("OLMo.*-hf", "olmo"),
    (r"Qwen2\.5-Math-", "qwen2.5-math"),
    (r"Qwen2\.5-", "qwen2.5"),
    ("QwQ-", "qwq"),
    ("Qwen3-", "qwen3"),
    ("SmolLM2.*-Instruct", "smollm2"),
    ("salamandra-.*-instruct", "salamandra"),
)
"""(regular expression to search in the name, style); the first match applies."""


def style_name_of_model(model_name: str) -> str | None:
    """The name of the style; None without a match: a base model."""
    return next((style for pattern, style in _PATTERNS if re.search(pattern, model_name)), None)
