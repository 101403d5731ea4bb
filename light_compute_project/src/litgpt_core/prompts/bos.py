"""Whether prompts for a checkpoint begin with its begin-of-sequence token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.parsing import read_json


def starts_with_bos(directory: Path) -> bool:
    """Whether prompts for this checkpoint begin with bos, by the rules of litgpt 0.5.13's
    `Tokenizer.check_if_bos_token_used`.

    `tokenizer_config.json` decides; folder names of Llama 3 and SmolLM2 Instruct overrule it. Raises CheckpointError if
    that file is not valid JSON.
    """
    file = Path(directory).resolve() / "tokenizer_config.json"
    if not file.is_file():
        return False
    name = file.parent.name
    try:
        config: dict[str, Any] = read_json(file)
    except ValueError as problem:
        raise CheckpointError(
            f"{file} is not valid JSON: {problem}.", fix="copy it from the model's source again"
        ) from problem
    if name.startswith(("Meta-Llama-3", "Llama-3")) or (name.startswith("SmolLM2") and name.endswith("Instruct")):
        return True
    return bool(config.get("add_bos_token", config.get("tokenizer_class") == "LlamaTokenizer"))
