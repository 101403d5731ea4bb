"""The prompt styles by name: those of litgpt 0.5.13 under its names, and ours; `turn_style` defines the fields.

For a single user message, the prompt equals LitGPT's byte for byte; later turns follow the format of each model family.
"""

from __future__ import annotations

import difflib

from litgpt_core.core.errors import ConfigError
from litgpt_core.prompts import system_texts
from litgpt_core.prompts.style import PromptStyle
from litgpt_core.prompts.turn_style import PlainStyle, TurnStyle

HUMAN_ASSISTANT = TurnStyle(
    name="human_assistant",
    description="Human: and Assistant: at line starts; for any tokenizer; the default for chats trained here",
    system="{system}\n",
    turn="Human: {user}\nAssistant: ",
    between="\n",
    stops=("\nHuman:",),
)
"""The default style for chats trained here."""

PLAIN = PlainStyle()


def _instruction(name: str, litgpt_class: str, *, description: str, default_system: str) -> TurnStyle:
    return TurnStyle(
        name=name,
        litgpt_class=litgpt_class,
        description=description,
        system="{system}",
        default_system=default_system,
        turn="### Instruction:\n{user}\n\n### Response:\n",
        between="\n\n",
        stops=("\n### Instruction:",),
    )


def _chatml(name: str, litgpt_class: str, *, description: str, default_system: str = "") -> TurnStyle:
    return TurnStyle(
        name=name,
        litgpt_class=litgpt_class,
        description=description,
        system="<|im_start|>system\n{system}<|im_end|>\n",
        default_system=default_system,
        turn="<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n",
        end="<|im_end|>",
        between="\n",
    )


_STYLES: tuple[TurnStyle | PlainStyle, ...] = (
    HUMAN_ASSISTANT,
    PLAIN,
    # formats of datasets
    _instruction("alpaca", "Alpaca", description="Alpaca's headings", default_system=system_texts.INSTRUCTION),
    _instruction("flan", "FLAN", description="Alpaca's headings", default_system=system_texts.INSTRUCTION),
    _instruction(
        "longform",
        "Longform",
        description="Alpaca's headings, with the text for tasks that have an input",
        default_system=system_texts.INSTRUCTION_WITH_INPUT,
    ),
    # formats of models
    TurnStyle(
        name="stablelm-alpha",
        litgpt_class="StableLMAlpha",
        description="StableLM Tuned Alpha",
        system="<|SYSTEM|>{system}",
        default_system=system_texts.STABLELM_ALPHA,
        turn="<|USER|>{user}<|ASSISTANT|>",
        stops=("<|SYSTEM|>", "<|ASSISTANT|>", "<|USER|>"),
    ),
    TurnStyle(
        name="stablelm-zephyr",
        litgpt_class="StableLMZephyr",
        description="StableLM Zephyr",
        turn="<|user|>\n{user}<|endoftext|>\n<|assistant|>\n",
        between="\n",
    ),
    TurnStyle(
        name="falcon",
        litgpt_class="Falcon",
        description="Falcon Instruct",
        turn="{user}\nAnswer:",
        between="\n",
        stops=("User:", "\nUser"),
    ),
    TurnStyle(
        name="falcon3",
        litgpt_class="Falcon3",
        description="Falcon 3 Instruct",
        turn="<|user|>\n{user}<|endoftext|>\n<|assistant|>\n",
        between="\n",
        stops=("<|endoftext|>",),
    ),
    TurnStyle(
        name="llama2-function-calling",
        litgpt_class="Llama2FunctionCalling",
        description="Llama 2 that answers with a call of one example function",
        start=f"<FUNCTIONS>{system_texts.LLAMA2_FUNCTION_LIST}</FUNCTIONS>\n\n",
        system="[INST]<<SYS>>\n{system}\n<</SYS>>\n\n",
        default_system=system_texts.LLAMA2_FUNCTIONS,
        strip_system=True,
        first_turn="{user}[/INST]\n\n",
        turn="[INST]{user}[/INST]\n\n",
        bos_between=True,
    ),
    TurnStyle(
        name="llama2",
        litgpt_class="Llama2",
        description="Llama 2 Chat",
        system="[INST] <<SYS>>\n{system}\n<</SYS>>\n\n ",
        default_system=system_texts.LLAMA2,
        first_turn="{user} [/INST] ",
        turn="[INST] {user} [/INST] ",
        bos_between=True,
    ),
    TurnStyle(
        name="freewilly2",
        litgpt_class="FreeWilly2",
        description="FreeWilly 2 (Stable Beluga)",
        system="### System:\n{system}\n\n",
        default_system=system_texts.FREEWILLY2,
        turn="### User:\n{user}\n\n### Assistant:\n",
        between="\n\n",
        stops=("\n### User:",),
    ),
    TurnStyle(
        name="platypus",
        litgpt_class="Platypus",
        description="Platypus",
        turn="### Instruction:\n\n{user}\n\n### Response:\n",
        between="\n\n",
        stops=("\n### Instruction:",),
    ),
    TurnStyle(
        name="stablecode",
        litgpt_class="StableCode",
        description="StableCode Instruct",
        turn="###Instruction\n{user}###Response\n",
        between="\n",
        stops=("\n###Instruction",),
    ),
    TurnStyle(
        name="codellama",
        litgpt_class="CodeLlama",
        description="CodeLlama Instruct, Mistral Instruct, Mixtral Instruct",
        system="[INST] <<SYS>>\n{system}\n<</SYS>>\n\n",
        first_turn="{user} [/INST]",
        turn="[INST] {user} [/INST]",
    ),
    TurnStyle(
        name="phi-1",
        litgpt_class="Phi1",
        description="Phi 1 and 1.5",
        turn="{user}\n\nAnswer:",
        between="\n\n",
        stops=("Answer:",),
    ),
    TurnStyle(
        name="phi-2",
        litgpt_class="Phi2",
        description="Phi 2",
        turn="Instruct: {user}\nOutput:",
        between="\n",
        stops=("\nInstruct:",),
    ),
    TurnStyle(
        name="phi-3",
        litgpt_class="Phi3",
        description="Phi 3",
        system="<|system|>\n{system}<|end|>\n",
        default_system=system_texts.HELPFUL,
        turn="<|user|>\n{user}<|end|>\n<|assistant|>\n",
        end="<|end|>",
        between="\n",
    ),
    TurnStyle(
        name="phi-4",
        litgpt_class="Phi4",
        description="Phi 4",
        system="<|im_start|>system<|im_sep|>{system}<|im_end|>",
        turn="<|im_start|>user<|im_sep|>{user}<|im_end|><|im_start|>assistant<|im_sep|>",
        end="<|im_end|>",
    ),
    TurnStyle(
        name="phi-4-reasoning",
        litgpt_class="Phi4Reasoning",
        description="Phi 4 Reasoning",
        system="<|im_start>system<|im_sep|>{system}<|im_end|>",  # one bar is missing there in LitGPT too
        default_system=system_texts.PHI_4_REASONING,
        turn="<|im_start|>user<|im_sep|>{user}<|im_end|><|im_start|>assistant<|im_sep|>",
        end="<|im_end|>",
    ),
    TurnStyle(
        name="phi-4-mini",
        litgpt_class="Phi4Mini",
        description="Phi 4 Mini Instruct",
        system="<|system|>{system}<|end|>",
        turn="<|user|>{user}<|end|><|assistant|>",
        end="<|end|>",
    ),
    TurnStyle(
        name="phi-4-mini-reasoning",
        litgpt_class="Phi4MiniReasoning",
        description="Phi 4 Mini Reasoning",
        system="<|system|>{system}<|end|>",
        default_system=system_texts.PHI_4_MINI_REASONING,
        turn="<|user|>{user}<|end|><|assistant|>",
        end="<|end|>",
    ),
    TurnStyle(
        name="tinyllama",
        litgpt_class="TinyLlama",
        description="TinyLlama Chat",
        system="<|system|>\n{system}</s>\n",
        default_system=system_texts.TINYLLAMA,
        turn="<|user|>\n{user}</s>\n<|assistant|>\n",
        between="\n",
    ),
    TurnStyle(
        name="gemma",
        litgpt_class="Gemma",
        description="Gemma, CodeGemma: instruction tuned",
        turn="<start_of_turn>user\n{user}<end_of_turn>\n<start_of_turn>model\n",
        end="<end_of_turn>",
        between="\n",
    ),
    TurnStyle(
        name="llama3",
        litgpt_class="Llama3",
        description="Llama 3 Instruct, OLMo 2 Instruct",
        start="<|begin_of_text|>",
        system="<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
        default_system=system_texts.HELPFUL,
        turn="<|start_header_id|>user<|end_header_id|>\n\n{user}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        end="<|eot_id|>",
    ),
    TurnStyle(
        name="r1",
        litgpt_class="R1Base",
        description="DeepSeek R1 and its distillations",
        system="{system}",
        turn="<｜User｜>{user}<｜Assistant｜>",
        stops=("<｜end▁of▁sentence｜>",),
    ),
    TurnStyle(
        name="olmo",
        litgpt_class="OLMo",
        description="OLMo Instruct",
        start="<|endoftext|>",
        turn="<|user|>\n{user}\n<|assistant|>\n",
        between="\n",
    ),
    _chatml("chatml", "ChatML", description="ChatML without a default system text"),
    _chatml("qwen2.5", "Qwen2_5", description="Qwen 2.5", default_system=system_texts.QWEN_2_5),
    _chatml("qwen2.5-math", "Qwen2_5_Math", description="Qwen 2.5 Math", default_system=system_texts.QWEN_2_5_MATH),
    _chatml("qwq", "QwQ", description="QwQ", default_system=system_texts.QWQ),
    _chatml("qwen3", "Qwen3", description="Qwen 3"),
    _chatml("smollm2", "SmolLM2", description="SmolLM 2 Instruct", default_system=system_texts.SMOLLM2),
    _chatml("salamandra", "Salamandra", description="Salamandra Instruct", default_system=system_texts.SALAMANDRA),
)
_BY_NAME = {style.name: style for style in _STYLES}
_BY_CLASS = {style.litgpt_class: style for style in _STYLES if style.litgpt_class}


def style_names() -> list[str]:
    """All names, ours first."""
    return list(_BY_NAME)


def style_named(name: str) -> TurnStyle | PlainStyle:
    """The style of that name. Raises ConfigError with similar names if there is none."""
    if name not in _BY_NAME:
        near = difflib.get_close_matches(name.lower().replace("_", "-"), _BY_NAME, n=3, cutoff=0.5)
        raise ConfigError(
            f"There is no prompt style {name!r}.",
            needed=f"one of {', '.join(_BY_NAME)}",
            fix=f"did you mean {' or '.join(near)}?"
            if near
            else "human_assistant is the default of chats trained here",
        )
    return _BY_NAME[name]


def style_of_litgpt_class(name: str) -> PromptStyle | None:
    """The style of the class `litgpt.prompts.<name>`; None for a class that LitGPT 0.5.13 does not have."""
    return _BY_CLASS.get(name)
