"""Releases: tag, version and changelog agree; the image takes only what it needs."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from litgpt_core import __version__

ROOT = Path(__file__).resolve().parents[3]
DOCKER = ROOT / "light_compute_project" / "docker"
CHANGELOG = "# Changelog\n\n## Unreleased\n\n- later\n\n## 0.2.0 (2026-12-01)\n\n- new\n\n## 0.1.0\n\n- first\n"


@pytest.fixture(scope="module")
def release() -> ModuleType:
    place = ROOT / "light_compute_project" / "tools" / "release.py"
    spec = importlib.util.spec_from_file_location("release", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_notes_are_the_section_of_the_version(release: ModuleType) -> None:
    assert release.notes("v0.2.0", "0.2.0", CHANGELOG) == "- new\n"
    assert release.notes("v0.1.0", "0.1.0", CHANGELOG) == "- first\n"


@pytest.mark.parametrize(
    ("tag", "version", "says"),
    [("v0.2.1", "0.2.0", "tag v0.2.0"), ("v0.2", "0.2", "has no section"), ("v1.0.0", "1.0.0", "Unreleased")],
)
def test_a_disagreement_ends_the_release(release: ModuleType, tag: str, version: str, says: str) -> None:
    with pytest.raises(SystemExit, match=says):
        release.notes(tag, version, CHANGELOG)


def test_one_version_everywhere() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == __version__


def test_the_image_takes_only_files_that_it_names() -> None:
    """What `COPY` names is let through by the ignore file, everything else stays out, and all of it exists."""
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {line[1:] for line in rules if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(.+)$", (DOCKER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    copied = {source for line in copies for source in line.split()[:-1]}
    assert {source + "uv.txt" if source == ".ci/" else source for source in copied} == allowed
    assert all((ROOT / name).exists() for name in allowed)


def test_the_services_run_with_few_rights() -> None:
    serve = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]["serve"]
    assert serve["read_only"] is True and serve["cap_drop"] == ["ALL"]
    assert serve["ports"] == ["127.0.0.1:8000:8000"], "reachable from this machine alone"
    assert serve["environment"]["LIGHT_COMPUTE_API_KEY"].startswith("${LIGHT_COMPUTE_API_KEY:?"), "no key, no start"
    assert re.search(r"^USER lcp$", (DOCKER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
