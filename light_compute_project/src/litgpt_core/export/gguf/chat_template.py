"""The prompt style of a checkpoint for other programs: as a Jinja template (llama.cpp) and as a Modelfile (Ollama).

A template from elsewhere is passed on. If both it and the tokenizer begin a prompt with bos, the template's becomes
empty: llama.cpp adds the tokenizer's, and two of them spoil the answer.
"""

from __future__ import annotations

import json
from pathlib import Path

from litgpt_core.prompts import Message, PromptStyle
from litgpt_core.prompts.template import TemplateStyle
from litgpt_core.prompts.turn_style import SYSTEM, USER, TurnStyle
from litgpt_core.tokenizers import Tokenizer

_NO_BOS = "{%- set bos_token = '' -%}"


def template_of(style: PromptStyle | None, tokenizer: Tokenizer) -> str | None:
    """`tokenizer.chat_template`; None for a base model."""
    if isinstance(style, TemplateStyle):
        segments = style.prompt_segments([Message(role="user", content="?")])
        doubled = tokenizer.use_bos and bool(segments) and segments[0].begin_of_text
        return f"{_NO_BOS}{style.template}" if doubled else style.template
    return jinja_of(style) if isinstance(style, TurnStyle) else None


def jinja_of(style: TurnStyle) -> str:
    """A Jinja template that renders what `style.segments` gives, for messages in order."""
    before, after = style.turn.split(USER)
    first_before, first_after = (style.first_turn or style.turn).split(USER)
    lines = ["{%- set rest = messages -%}", f"{{%- set system = {_quoted(style.default_system)} -%}}"]
    lines.append("{%- if messages[0]['role'] == 'system' -%}{%- set rest = messages[1:] -%}")
    lines.append("{%- set system = messages[0]['content'] or system -%}{%- endif -%}")
    if style.strip_system:
        lines.append("{%- set system = system.strip() -%}")
    lines.append(_printed(style.start))
    if style.system:
        opening, closing = style.system.split(SYSTEM)
        lines.append(f"{{%- if system -%}}{_printed(opening)}{{{{- system -}}}}{_printed(closing)}{{%- endif -%}}")
    lines.append("{%- for message in rest -%}{%- if message['role'] == 'user' -%}")
    again = _printed(style.between) + ("{{- bos_token -}}" if style.bos_between else "")
    lines.append(f"{{%- if not loop.first -%}}{again}{{%- endif -%}}")
    if not style.system:
        lines.append("{%- if loop.first and system -%}{%- set head = system + '\\n\\n' -%}{%- else -%}")
        lines.append("{%- set head = '' -%}{%- endif -%}")
    else:
        lines.append("{%- set head = '' -%}")
    own = f"{_printed(before)}{{{{- head + message['content'] -}}}}{_printed(after)}"
    if style.first_turn is not None and style.system:
        special = f"{_printed(first_before)}{{{{- message['content'] -}}}}{_printed(first_after)}"
        own = f"{{%- if loop.first and system -%}}{special}{{%- else -%}}{own}{{%- endif -%}}"
    end = _printed(style.end) if style.end else "{{- eos_token -}}"
    lines.append(f"{own}{{%- else -%}}{{{{- message['content'] -}}}}{end}{{%- endif -%}}{{%- endfor -%}}")
    return "".join(lines)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _printed(text: str) -> str:
    return f"{{{{- {_quoted(text)} -}}}}" if text else ""


def modelfile(file: Path, style: PromptStyle | None, *, context: int) -> str:
    """Ollama's Modelfile: the file, the prompt format in Go's template language, stop strings, the context."""
    lines = [f"FROM ./{file.name}"]
    if isinstance(style, TurnStyle):
        lines.append(f'TEMPLATE """{_go_template(style)}"""')
        if style.default_system:
            lines.append(f'SYSTEM """{style.default_system}"""')
    elif style is None:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    else:
        lines.append("# no TEMPLATE: Ollama recognises known chat templates inside the file, others not")
    if style is not None:
        lines += [f"PARAMETER stop {_quoted(text)}" for text in style.stop_strings()]
    return "\n".join([*lines, f"PARAMETER num_ctx {context}"]) + "\n"


def _go_template(style: TurnStyle) -> str:
    """One turn: Ollama repeats it. What only begins a conversation, besides the system text, cannot be said."""
    before, after = map(_go_literal, style.turn.split(USER))
    opening, closing = map(_go_literal, style.system.split(SYSTEM)) if style.system else ("", "")
    system = f"{{{{ if .System }}}}{opening}{{{{ .System }}}}{closing}{{{{ end }}}}" if style.system else ""
    end = _go_literal(style.end + style.between)
    return f"{system}{{{{ if .Prompt }}}}{before}{{{{ .Prompt }}}}{after}{{{{ end }}}}{{{{ .Response }}}}{end}"


def _go_literal(text: str) -> str:
    """Text in a template; two braces would begin an action."""
    return text.replace("{{", '{{ "{{" }}')
