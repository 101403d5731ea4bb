"""The files that tools look for: a container to develop in, and how to cite. Both lie where LitGPT's own do not."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]
ROOT = PROJECT.parent


def test_the_development_container_installs_what_the_makefile_installs_on_a_supported_python() -> None:
    content = json.loads((PROJECT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert re.fullmatch(r"python:3\.1[123]-bookworm", content["image"])
    assert "target=/workspace," in content["workspaceMount"] and content["workspaceFolder"] == "/workspace"
    assert content["postCreateCommand"].endswith("make environment")
    assert "\nenvironment:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    paths = content["customizations"]["vscode"]["settings"]["python.testing.pytestArgs"]
    assert all((ROOT / path).is_dir() for path in paths)


def test_the_citation_names_this_version_and_license() -> None:
    cited = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert cited["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= cited.keys()
