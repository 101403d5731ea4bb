"""Every setting that a data error proposes leads on: applied one after the other, until the data can be prepared."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from litgpt_core.core.errors import DataError
from litgpt_core.data.prepare import prepare
from litgpt_core.data.settings import TextSettings
from litgpt_core.tokenizers.settings import ByteSettings

HINT = re.compile(r"data\.(\w+)=(\'[^\']*\'|\S+?)(?=,? |$)")
Make = Callable[[Path], dict[str, Any]]


def text(seed: int, count: int = 60) -> str:
    draw = random.Random(seed)
    return "".join(f"line {draw.randrange(10**9)} of é text\n" for _ in range(count))


def folder(**files: str | bytes) -> Make:
    def make(root: Path) -> dict[str, Any]:
        for name, content in files.items():
            path = root / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return {"path": str(root)}

    return make


def file(content: str | bytes, **more: Any) -> Make:
    def make(root: Path) -> dict[str, Any]:
        (root / "input.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
        return {"path": str(root / "input.txt"), **more}

    return make


def linked(root: Path) -> dict[str, Any]:
    (root / "real").mkdir()
    (root / "folder").mkdir()
    (root / "real" / "a.md").write_text(text(0))
    (root / "folder" / "more").symlink_to("../real")
    return {"path": str(root / "folder")}


def near_name(root: Path) -> dict[str, Any]:
    return {**file(text(0))(root), "path": str(root / "imput.txt")}


CASES: dict[str, Make] = {
    "three copies": folder(**{f"p{i}_txt": text(0) for i in range(3)}),
    "three copies and the wrong kind of split": lambda root: {
        **folder(**{f"p{i}_txt": text(0) for i in range(3)})(root),
        "split": "tail",
    },
    "a file that repeats itself": file("the same line\n" * 1000),
    "one short line": file("hello world"),
    "a stray byte": file(text(0).encode() + b"\xff" + text(1).encode()),
    "cut inside a character": file(text(0).encode() + "é".encode()[:1]),
    "a zero byte": file(text(0).encode() + b"\0" + text(1).encode()),
    "utf-16 without a mark": file(text(0).encode("utf-16-le")),
    "utf-16 that is not listed": file(text(0).encode("utf-16"), encodings=["utf-8"]),
    "cyrillic": file(
        ("Привет, мир! Это текст на русском языке, для проверки.\n" + text(0)).replace("é", "").encode("cp1251")
    ),
    "another ending": folder(a_md=text(0), b_md=text(1), c_rst=text(2)),
    "no ending": folder(README=text(0)),
    "strange ending": folder(**{"a_b c": text(0)}),
    "a pattern that is no pattern": lambda root: {**file(text(0))(root), "path": str(root), "glob": "/*.txt"},
    "links only": linked,
    "a name nearly right": near_name,
    "separators and nothing between": file("---" * 50 + "\n", document_separator="---"),
}


@pytest.mark.parametrize("case", CASES)
def test_typing_the_hints_leads_to_prepared_data(case: str, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    root.mkdir()
    settings = {"cache_dir": str(tmp_path / "cache"), **CASES[case](root)}
    seen: list[str] = []
    for _ in range(4):
        try:
            prepared = prepare(TextSettings(**settings), ByteSettings())
        except DataError as error:
            hint = HINT.search(error.fix)
            assert hint is not None, f"no setting to type in {error}"
            assert hint[0] not in seen, f"the same hint again: {error}"
            seen.append(hint[0])
            settings[hint[1]] = yaml.safe_load(hint[2])
        else:
            assert prepared.val_tokens >= 2
            break
    else:
        pytest.fail(f"still refused after typing {seen}")
    assert seen, "the case is an error at first"


@pytest.mark.parametrize("content", [b"", b" \n", b"a", b"ab", b"\x89PNG\r\n\0"])
def test_where_no_setting_helps_none_is_named(content: bytes, tmp_path: Path) -> None:
    settings = TextSettings(cache_dir=str(tmp_path / "cache"), **file(content)(tmp_path))
    with pytest.raises(DataError) as caught:
        prepare(settings, ByteSettings())
    assert not re.search(r"data\.(split|encodings|decode_errors|group)", caught.value.fix)
