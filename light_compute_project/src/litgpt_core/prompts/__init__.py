"""Prompt styles: convert a conversation to the text and the token ids that a model expects. Does not import torch.

    from litgpt_core.prompts import Message, encode_prompt, load_style
    style = load_style(Path("checkpoints/org/name"))  # None: a base model
    ids = encode_prompt(style, tokenizer, [Message(role="user", content="Hello")])

Names are imported lazily.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from litgpt_core.core.lazy import lazy_names

if TYPE_CHECKING:
    from litgpt_core.prompts.bos import starts_with_bos as starts_with_bos
    from litgpt_core.prompts.catalogue import style_named as style_named
    from litgpt_core.prompts.catalogue import style_names as style_names
    from litgpt_core.prompts.directory import explain_style as explain_style
    from litgpt_core.prompts.directory import load_style as load_style
    from litgpt_core.prompts.directory import save_style as save_style
    from litgpt_core.prompts.encode import encode_conversation as encode_conversation
    from litgpt_core.prompts.encode import encode_prompt as encode_prompt
    from litgpt_core.prompts.message import Message as Message
    from litgpt_core.prompts.message import Segment as Segment
    from litgpt_core.prompts.model_names import style_name_of_model as style_name_of_model
    from litgpt_core.prompts.style import PromptStyle as PromptStyle

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "bos": "starts_with_bos",
        "catalogue": "style_named style_names",
        "directory": "explain_style load_style save_style",
        "encode": "encode_conversation encode_prompt",
        "message": "Message Segment",
        "model_names": "style_name_of_model",
        "style": "PromptStyle",
    },
)
