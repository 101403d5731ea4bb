"""What LitGPT's `Config` and its registry of names say, against a snapshot: an upstream release cannot move a field,
a default or a model's values without this test naming it, with what it was and what it is.

The snapshot `litgpt-config.json` holds facts of the pinned release: every field with its type and default, and per
name every value that differs from its field's default, derived values (head_size, padded_vocab_size, ...) included.
After a release whose differences are understood, write it anew:

    uv run python light_compute_project/tests/contract/test_contract_litgpt_config.py --write

Not here: whether our own `GPTConfig` agrees (`tests/unit/model/test_model_parity.py`).
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.metadata
import importlib.util
import json
import sys
import textwrap
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.parity

Facts = dict[str, Any]

SNAPSHOT = Path(__file__).with_name("litgpt-config.json")
WRITE = "uv run python light_compute_project/tests/contract/test_contract_litgpt_config.py --write"
ABSENT = "(absent)"


# --- taking the facts


def installed() -> ModuleType:
    """The installed litgpt's config.py, loaded by itself: importing the package takes seconds."""
    package = importlib.util.find_spec("litgpt")
    assert package is not None and package.submodule_search_locations
    name = "litgpt_config_under_contract"
    spec = importlib.util.spec_from_file_location(name, Path(package.submodule_search_locations[0], "config.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def take(module: ModuleType) -> Facts:
    """Plain values only: release, fields, and per name what differs from the defaults."""
    described = {}
    for field in dataclasses.fields(module.Config):
        made = field.default_factory is not dataclasses.MISSING
        kind = field.type.__name__ if isinstance(field.type, type) else str(field.type).replace("typing.", "")
        described[field.name] = {"type": kind, "default": field.default_factory() if made else field.default}
    models = {}
    for entry in module.configs:
        values = {"name": entry["name"]} | vars(module.Config.from_name(entry["name"]))
        models[entry["name"]] = {
            key: value
            for key, value in sorted(values.items())
            if key != "name" and (key not in described or value != described[key]["default"])
        }
    facts = {
        "litgpt": importlib.metadata.version("litgpt"),
        "fields": dict(sorted(described.items())),
        "models": dict(sorted(models.items())),
    }
    plain: Facts = json.loads(json.dumps(facts))
    return plain


def render(facts: Facts) -> str:
    """JSON with one line per field and a few lines per name, so that a difference is a line."""
    fields = [f'    "{name}": {json.dumps(value)}' for name, value in facts["fields"].items()]
    models = [f'    "{name}": {{\n{wrapped(values)}\n    }}' for name, values in facts["models"].items()]
    head = [
        '  "about": "Facts of LitGPT, not edited by hand"',
        f'  "written by": "{WRITE}"',
        f'  "litgpt": "{facts["litgpt"]}"',
    ]
    blocks = [
        f'  "{key}": {{\n' + ",\n".join(lines) + "\n  }" for key, lines in (("fields", fields), ("models", models))
    ]
    return "{\n" + ",\n".join([*head, *blocks]) + "\n}\n"


def wrapped(values: dict[str, Any]) -> str:
    """The inside of a JSON object in lines of at most 120 characters, broken between values or inside lists."""
    lines = [""]
    for entry in (f'"{key}": {json.dumps(value)}' for key, value in values.items()):
        if lines[-1] and len(lines[-1]) + len(entry) > 105:
            lines.append("")
        lines[-1] += f", {entry}" if lines[-1] else entry
    broken = [part for line in lines for part in textwrap.wrap(line + ",", 112, break_long_words=False)]
    return textwrap.indent("\n".join(broken), " " * 6).removesuffix(",")


# --- comparing


def differences(was: Facts, now: Facts) -> list[str]:
    """One line per fact that moved. A name that only follows its field's new default is counted, not listed."""
    lines, moved = [], changed_fields(was, now)
    followers: dict[str, int] = defaultdict(int)
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name in sorted(was["models"].keys() & now["models"].keys()):
        old, new = values_of(was, name), values_of(now, name)
        for key in sorted(old.keys() | new.keys()):
            before, after = old.get(key, ABSENT), new.get(key, ABSENT)
            if before == after:
                continue
            if key in moved and (before, after) == tuple(side["default"] for side in moved[key]):
                followers[key] += 1
            else:
                groups[key, short(before), short(after)].append(name)
    for field, (old, new) in moved.items():
        for part in ("type", "default"):
            if old[part] != new[part]:
                tail = f"; {followers[field]} names follow" if part == "default" and followers[field] else ""
                lines.append(f"field {field}: {part} was {short(old[part])}, is {short(new[part])}{tail}")
    lines += [f"name {name}: was there, is gone" for name in sorted(was["models"].keys() - now["models"].keys())]
    lines += [f"name {name}: was not there, is new" for name in sorted(now["models"].keys() - was["models"].keys())]
    for (key, before, after), names in groups.items():
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        lines.append(f"{', '.join(names[:4])}{more}: {key} was {before}, is {after}")
    return lines


def changed_fields(was: Facts, now: Facts) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    none = {"type": ABSENT, "default": ABSENT}
    pairs = {
        name: (was["fields"].get(name, none), now["fields"].get(name, none))
        for name in sorted(was["fields"].keys() | now["fields"].keys())
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def values_of(facts: Facts, name: str) -> dict[str, Any]:
    return {field: described["default"] for field, described in facts["fields"].items()} | facts["models"][name]


def short(value: Any) -> str:
    text = value if value == ABSENT else json.dumps(value)
    return text if len(text) <= 160 else f"{text[:160]}... ({len(text)} characters)"


def report(was: Facts, now: Facts) -> str:
    """Empty if nothing moved."""
    found = differences(was, now)
    if not found:
        return ""
    title = (
        f"LitGPT {now['litgpt']} says something else than the snapshot of {was['litgpt']}, {len(found)} differences:"
    )
    end = f"If each is understood, and litgpt_core.model.config follows where it must: {WRITE}"
    return "\n".join([title, *(f"  {line}" for line in found), end])


# --- the tests


def committed() -> Facts:
    facts: Facts = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    return facts


def test_upstream_says_what_the_snapshot_says() -> None:
    moved = report(committed(), take(installed()))
    if moved:
        pytest.fail(moved, pytrace=False)


def test_the_snapshot_is_what_the_command_writes() -> None:
    """Nobody edited it by hand, and it reads back as what was taken."""
    text, facts = SNAPSHOT.read_text(encoding="utf-8"), committed()
    assert render(facts) == text
    assert len(facts["fields"]) == 51 and len(facts["models"]) == 210
    assert len(text.encode()) < 300_000
    assert max(map(len, text.splitlines())) <= 120


def test_a_few_facts_by_hand() -> None:
    facts = committed()
    assert facts["fields"]["norm_eps"] == {"type": "float", "default": 1e-5}
    assert facts["fields"]["head_size"] == {"type": "int | None", "default": None}
    pythia = values_of(facts, "pythia-14m")
    assert (pythia["n_layer"], pythia["n_embd"], pythia["rope_n_elem"], pythia["bias"]) == (6, 128, 8, True)


CHANGES: dict[str, tuple[list[Any], Any, list[str]]] = {
    "a default": (["fields", "norm_eps", "default"], 2e-5, ["field norm_eps: default was 1e-05, is 2e-05"]),
    "a type": (["fields", "n_layer", "type"], "float", ['field n_layer: type was "int", is "float"']),
    "a value": (["models", "pythia-14m", "n_layer"], 7, ["pythia-14m: n_layer was 6, is 7"]),
    "a default's value": (["models", "pythia-14m", "norm_eps"], 0.5, ["pythia-14m: norm_eps was 1e-05, is 0.5"]),
    "a new name": (["models", "new-1b"], {}, ["name new-1b: was not there, is new"]),
    "a new attribute": (["models", "pythia-14m", "extra"], 1, ["pythia-14m: extra was (absent), is 1"]),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named_with_what_was_and_what_is(change: str) -> None:
    path, value, lines = CHANGES[change]
    was = committed()
    now = copy.deepcopy(was)
    place = now
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    found = differences(was, now)
    assert [line.split(";")[0] for line in found if not line.startswith("name ") or "new-1b" in line] == lines
    assert WRITE in report(was, now)


def test_names_that_follow_a_default_are_counted_and_others_named() -> None:
    """A snapshot that pins a value loses nothing when the default moves to or from it."""
    was = committed()
    now = copy.deepcopy(was)
    now["fields"]["norm_eps"]["default"] = 1e-6
    following = [name for name, values in was["models"].items() if "norm_eps" not in values]
    assert differences(was, now) == [f"field norm_eps: default was 1e-05, is 1e-06; {len(following)} names follow"]
    now["models"][following[0]]["norm_eps"] = 1e-5
    assert differences(was, now)[0].endswith(f"{len(following) - 1} names follow")


def test_a_new_and_a_lost_field_are_one_line_each() -> None:
    was = committed()
    now = copy.deepcopy(was)
    now["fields"]["new_switch"] = {"type": "bool", "default": False}
    del now["fields"]["rope_interleave"]
    assert differences(was, now) == [
        'field new_switch: type was (absent), is "bool"',
        "field new_switch: default was (absent), is false; 210 names follow",
        'field rope_interleave: type was "bool", is (absent)',
        "field rope_interleave: default was false, is (absent); 210 names follow",
    ]


def test_a_lost_name_and_the_same_change_of_many_are_short() -> None:
    was = committed()
    now = copy.deepcopy(was)
    del now["models"]["pythia-14m"]
    pythias = sorted(name for name in now["models"] if name.startswith("pythia"))
    assert len(pythias) > 4
    for name in pythias:
        now["models"][name]["rope_base"] = 20000
    assert differences(was, now) == [
        "name pythia-14m: was there, is gone",
        f"{', '.join(pythias[:4])} and {len(pythias) - 4} more: rope_base was 10000, is 20000",
    ]


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {WRITE}")
    SNAPSHOT.write_text(render(take(installed())), encoding="utf-8", newline="\n")
    print(f"{SNAPSHOT.name} written from litgpt {importlib.metadata.version('litgpt')}")
