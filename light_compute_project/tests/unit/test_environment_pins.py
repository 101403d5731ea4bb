"""One set of exact versions: pyproject.toml, requirements.txt and what is installed agree. No test asks the network."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import os
import re
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[3]
TOOL = ROOT / "light_compute_project" / "tools" / "pins.py"
CONFIGS = ROOT / "light_compute_project" / "configs"
OTHER_PACKAGES = "LIGHT_COMPUTE_OTHER_PACKAGES"
"""Set by whoever installs other versions on purpose, such as the nightly job with LitGPT's newest release."""

SYSTEMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"},
    "macos": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "os_name": "posix"},
    "windows": {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64", "os_name": "nt"},
}


@cache
def tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("pins", TOOL)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@cache
def pins() -> tuple[str, ...]:
    return tuple(tool().read_pins((ROOT / "requirements.txt").read_text(encoding="utf-8")))


# ---- what is committed ----


def test_pyproject_holds_the_pins_of_requirements_and_writing_them_again_changes_nothing() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    stale = "pyproject.toml and requirements.txt differ: type `make requirements`"
    assert project()["tool"]["uv"]["constraint-dependencies"] == list(pins()), stale
    assert tool().with_constraints(text, list(pins())) == text, stale


def test_every_requirement_is_exact_and_has_hashes_and_no_address() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    blocks = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins()) > 100
    assert [block.split()[0] for block in blocks if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", block)] == []
    assert "://" not in text


@pytest.mark.parametrize(
    ("python", "system"), list(itertools.product(("3.11", "3.12", "3.13"), SYSTEMS)), ids=lambda value: value
)
def test_there_is_one_version_of_everything_declared_for_every_python_and_system(python: str, system: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.4", **SYSTEMS[system]}
    versions: dict[str, str] = {}
    for requirement in map(Requirement, pins()):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.name not in versions, f"two versions of {requirement.name}"
            versions[tool().name_of(requirement.name)] = str(requirement.specifier).removeprefix("==")
    for requirement in declared():
        version = versions[tool().name_of(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is pinned to {version}"


def declared() -> list[Requirement]:
    """Whatever pyproject.toml asks for by name: dependencies, extras, groups."""
    content = project()
    extras = itertools.chain.from_iterable(content["project"]["optional-dependencies"].values())
    groups = itertools.chain.from_iterable(content["dependency-groups"].values())
    return [Requirement(line) for line in itertools.chain(content["project"]["dependencies"], extras, groups)]


def test_the_packages_own_metadata_asks_for_bounds_not_for_versions() -> None:
    for requirement in map(Requirement, project()["project"]["dependencies"]):
        operators = {part.operator for part in requirement.specifier}
        assert operators and not operators & {"==", "==="}, f"{requirement}: bounds; exact versions are under [tool.uv]"


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_no_range_holds_a_malicious_upload_of_lightning(version: str) -> None:
    [lightning] = [r for r in declared() if r.name == "lightning"]
    assert not lightning.specifier.contains(version)
    assert f"!={version}" in str(lightning.specifier), "named, so that a lower bound that falls does not bring it in"
    assert not [pin for pin in pins() if re.match(rf"(pytorch-)?lightning=={re.escape(version)}\b", pin)]


def test_the_corpus_of_the_baseline_has_one_version_everywhere() -> None:
    content = project()
    wanted = yaml.safe_load((CONFIGS / "data" / "python_source.yaml").read_text(encoding="utf-8"))["packages"]
    exact = sorted(f"{name}=={version}" for name, version in wanted.items())
    assert sorted(content["project"]["optional-dependencies"]["corpus"]) == exact
    assert sorted(content["dependency-groups"]["corpus"]) == exact and set(exact) <= set(pins())
    assert set(content["tool"]["uv"]["default-groups"]) == {"dev", "corpus"}


def test_uv_itself_has_one_version_with_hashes() -> None:
    text = (ROOT / ".ci" / "uv.txt").read_text(encoding="utf-8")
    assert len(tool().read_pins(text)) == 1 and text.count("--hash=sha256:") > 10 and "://" not in text
    places = [ROOT / "Makefile", ROOT / ".ci" / "run", *(ROOT / ".github" / "workflows").glob("light-compute-*.yml")]
    lines = [line for path in places for line in path.read_text(encoding="utf-8").splitlines()]
    installs = [line for line in lines if re.search(r"\bpython -m pip install\b", line)]
    assert installs and not [i for i in installs if "--require-hashes" not in i or ".ci/uv.txt" not in i]
    assert not [line for line in lines if "uv==" in line and ".ci/uv.txt" not in line]


# ---- what is installed ----


@pytest.mark.skipif(bool(os.environ.get(OTHER_PACKAGES)), reason=f"{OTHER_PACKAGES} is set: other versions on purpose")
def test_what_is_installed_is_what_is_committed() -> None:
    content, versions, wrong = project(), {}, []
    for requirement in map(Requirement, pins()):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = versions[requirement.name] = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of an extra or a group that few people install
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is installed, {requirement.specifier} is committed")
    assert not wrong, "type `make environment`, or `uv sync`: " + "; ".join(wrong)
    needed = [*content["project"]["dependencies"], *content["dependency-groups"]["dev"]]
    assert {tool().name_of(line) for line in needed} <= {tool().name_of(name) for name in versions}


# ---- the tool ----


def test_the_tool_frees_all_or_the_named_pins_and_never_goes_back_in_time() -> None:
    empty = '[tool.uv]\nexclude-newer = "2026-03-01T00:00:00Z"\n# pins: begin\n# pins: end\n'
    text = tool().with_constraints(empty, ["a-b==1", "c==2 ; sys_platform == 'linux'", "setuptools==3"])
    assert 'build-constraint-dependencies = ["setuptools==3"]' in text
    free = tool().freed
    assert tool().constraints_in(free(text, [], date="2026-04-01T00:00:00Z")) == []
    assert 'exclude-newer = "2026-04-01T00:00:00Z"' in free(text, [], date="2026-04-01T00:00:00Z")
    assert 'exclude-newer = "2026-03-01T00:00:00Z"' in free(text, [], date="2026-02-01T00:00:00Z")
    left = tool().constraints_in(free(text, ["A_B", "c==5"], date=""))
    assert left == ["c==5", "setuptools==3"]
    with pytest.raises(SystemExit, match="pins no package of the name d"):
        free(text, ["d"], date="")


@pytest.mark.parametrize("line", ["numpy>=2", "numpy", "numpy==2.*", "-e .\nnumpy @ file:x"])
def test_the_tool_refuses_a_requirement_that_is_not_exact(line: str) -> None:
    with pytest.raises(SystemExit, match="not an exact version"):
        tool().read_pins(line + " \\\n    --hash=sha256:0\n")


def test_the_markers_of_pins_are_valid() -> None:
    assert [Marker(pin.split(" ; ")[1]) for pin in pins() if " ; " in pin]
