"""Any JSON value under any key of a Hugging Face folder's files is read or refused with an error for people."""

from __future__ import annotations

import contextlib
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from litgpt_core import tokenizers
from litgpt_core.core.errors import LightComputeError
from litgpt_core.export.huggingface.added_tokens import build_in_added_tokens, compare_ids
from litgpt_core.export.huggingface.families import read_config
from litgpt_core.export.huggingface.settings import ConfigFile
from litgpt_core.export.huggingface.vocabulary import gather_tokenizer
from litgpt_core.prompts import load_style

ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    2.5,
    10**400,
    float("inf"),
    "",
    "\ud83d",
    "x" * 3000,
    [],
    {},
    ["a"],
    {"a": []},
    [[]],
]


def places(value: Any) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [()] + [(key, *below) for key, each in items for below in places(each)]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def test_config_json_of_every_architecture(architectures: dict[str, tuple[str, dict[str, Any]]]) -> None:
    transformers = pytest.importorskip("transformers")
    for kind, known in architectures.values():
        content = getattr(transformers, f"{kind}Config")(**deepcopy(known)).to_dict()
        read_config(ConfigFile(Path("config.json"), content), name="x")
        for path in places(content)[1:]:
            for odd in ODD:
                with contextlib.suppress(LightComputeError):
                    read_config(ConfigFile(Path("config.json"), replaced(content, path, odd)), name="x")


def files(eos_id: int) -> dict[str, Any]:
    end = {"content": "<|endoftext|>", "special": True}
    return {
        "tokenizer_config.json": {
            "eos_token": "<|endoftext|>",
            "bos_token": end,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": False,
            "chat_template": "{{ messages[0].content }}",
            "added_tokens_decoder": {str(eos_id): end},
        },
        "generation_config.json": {"eos_token_id": [eos_id], "bos_token_id": 0, "pad_token_id": 0},
        "special_tokens_map.json": {"eos_token": end, "additional_special_tokens": ["x"]},
        "added_tokens.json": {"<|endoftext|>": eos_id},
    }


@pytest.mark.parametrize("name", files(0))
def test_files_of_a_tokenizer(name: str, tokenizer_dir: Path, tmp_path: Path) -> None:
    eos_id = tokenizers.load(tokenizer_dir).eos_id
    content = files(eos_id)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((tokenizer_dir / "tokenizer.json").read_bytes())
    for each, value in content.items():
        (folder / each).write_text(json.dumps(value))
    usable = 0
    for number, path in enumerate(places(content[name])):
        for odd in (None, 0, 10**400, "", "\ud83d", [], {"a": []}):
            (folder / name).write_text(json.dumps(replaced(content[name], path, odd)))
            target = tmp_path / f"out{number}"
            target.mkdir(exist_ok=True)
            with contextlib.suppress(LightComputeError):
                gather_tokenizer(folder, target, model={"eos_token_id": eos_id, "pad_token_id": odd})
                build_in_added_tokens(folder, target)
                tokenizer = tokenizers.load(target)
                compare_ids(folder, tokenizer, model={"eos_token_id": odd, "pad_token_id": odd})
                load_style(target)
                assert tokenizer.decode(tokenizer.encode("some text")) == "some text"
                tokenizer.save(tmp_path / "again")
                usable += 1
    assert usable
