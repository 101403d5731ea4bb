from __future__ import annotations

import copy
from typing import Any

import pytest

from litgpt_core.audit.causes import likely_causes, look_up, setting_causes

FACTS: dict[str, Any] = {
    "device": "cpu",
    "precision": "32-true",
    "cpu": "Some Processor",
    "cpu_capability": "AVX2",
    "platform": "Linux-6",
    "data_fingerprint": "d" * 64,
    "git": {"commit": "a" * 40},
    "code": {"package_files": {"training/module.py": "111", "model/gpt.py": "222", "serving/app.py": "333"}},
    "packages": {
        "torch": {"version": "2.11", "sha256": "t" * 64},
        "rich": {"version": "13", "sha256": "r" * 64},
        "light-compute-project": {"version": "0.1", "sha256": "x"},
    },
    "torch_build": {"version": "2.11", "config_sha256": "b" * 64},
    "threads": {"torch": 1, "omp": 1},
    "variables": {"OMP_NUM_THREADS": "1"},
    "determinism": {"cudnn_benchmark": False},
    "decisions": {"compile": False},
    "processes": {"world_size": 1},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    facts = copy.deepcopy(FACTS)
    *parents, last = path.split("/")
    table = facts
    for part in parents:
        table = table[part]
    table[last] = value
    return facts


def test_equal_environments_have_no_likely_causes() -> None:
    assert likely_causes(FACTS, copy.deepcopy(FACTS)) == []


@pytest.mark.parametrize(
    ("path", "value", "what", "shown"),
    [
        ("threads/torch", 2, "torch threads", ("1", "2")),
        ("cpu", "Other Processor", "processor", ("Some Processor", "Other Processor")),
        ("packages/torch", {"version": "2.12", "sha256": "u" * 64}, "torch", ("2.11", "2.12")),
        ("variables", {}, "OMP_NUM_THREADS", ("1", "not set")),
        ("determinism/cudnn_benchmark", True, "cudnn_benchmark", ("False", "True")),
        ("decisions/compile", True, "torch.compile", ("False", "True")),
        ("processes/world_size", 2, "processes", ("1", "2")),
        ("data_fingerprint", "e" * 64, "prepared data", ("d" * 12, "e" * 12)),
        ("code/package_files/model/gpt.py", "999", "code", ("a" * 12, "a" * 12)),
    ],
)
def test_each_difference_is_named_with_both_values(path: str, value: Any, what: str, shown: tuple[str, str]) -> None:
    facts = copy.deepcopy(FACTS)
    if path.startswith("code/"):
        facts["code"]["package_files"]["model/gpt.py"] = value
    else:
        facts = changed(path, value)
    [found] = likely_causes(FACTS, facts)
    assert found.what == what and (found.one, found.other) == shown and found.why


def test_changed_source_files_are_named_and_those_beside_training_come_last() -> None:
    facts = copy.deepcopy(FACTS)
    facts["code"]["package_files"] |= {"training/module.py": "new", "serving/app.py": "new", "optim/added.py": "new"}
    facts["platform"] = "Linux-7"
    found = likely_causes(FACTS, facts)
    assert [each.what for each in found] == ["code", "system", "other code"]
    assert "optim/added.py, training/module.py" in found[0].why and "serving" not in found[0].why
    assert "serving/app.py" in found[2].why


def test_the_same_version_with_other_files_is_said_so() -> None:
    [found] = likely_causes(FACTS, changed("packages/torch", {"version": "2.11", "sha256": "v" * 64}))
    assert found.what == "torch" and "same version" in found.why


def test_packages_that_do_not_compute_share_a_line_and_ours_has_none() -> None:
    facts = copy.deepcopy(FACTS)
    facts["packages"] |= {"rich": {"version": "14", "sha256": "s"}, "added": {"version": "1", "sha256": "y"}}
    facts["packages"]["light-compute-project"] = {"version": "0.2", "sha256": "z"}
    [found] = likely_causes(FACTS, facts)
    assert found.what == "other packages" and "rich 13 -> 14" in found.why and "added absent -> 1" in found.why


def test_data_comes_first_then_code_then_packages() -> None:
    facts = copy.deepcopy(FACTS)
    facts |= {"data_fingerprint": "e" * 64, "cpu": "Other"}
    facts["packages"]["torch"] = {"version": "3", "sha256": "w"}
    facts["code"]["package_files"]["model/gpt.py"] = "new"
    assert [each.what for each in likely_causes(FACTS, facts)] == ["prepared data", "code", "torch", "processor"]


def test_a_record_of_older_code_is_compared_as_far_as_it_goes() -> None:
    old = {
        "device": "cpu",
        "cpu": "Other",
        "versions": {"python": "3.11", "torch": "2.10"},
        "git": {"commit": "b" * 40},
    }
    new = {**FACTS, "versions": {"python": "3.11", "torch": "2.11"}}
    assert [each.what for each in likely_causes(old, new)] == ["code", "torch", "processor"]


def test_settings_without_effect_are_no_likely_causes() -> None:
    one = {"seed": 1, "run": {"name": "a"}, "logger": {"kind": "none"}, "trainer": {"save_interval": 5, "threads": 1}}
    other = {"seed": 1, "run": {"name": "b"}, "logger": {"kind": "csv"}, "trainer": {"save_interval": 9, "threads": 2}}
    [found] = setting_causes(one, other)
    assert (found.what, found.one, found.other) == ("trainer.threads", "1", "2")


def test_a_missing_part_is_none() -> None:
    assert look_up({"a": {"b": 1}}, "a.b") == 1
    assert look_up({"a": 5}, "a.b") is None and look_up({}, "a") is None
