"""Facts of the repository that must stay true: what files say, where they lie, what starting a script costs."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from litgpt_core.upstream.verify import read_synced

ROOT = Path(__file__).resolve().parents[3]
PROJECT = ROOT / "light_compute_project"
SOURCE = PROJECT / "src" / "litgpt_core"
SCRIPTS = sorted((PROJECT / "scripts").glob("*.py"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("light-compute-*.yml"))
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md"), *ROOT.glob("README.md")])

# Assembled from parts, so that this file names none of them itself.
REGISTRY_HOSTS = r"py" r"pi\.org|python" r"hosted\.org|deb\.deb" r"ian\.org|registry\.np" r"mjs\.org|ana" r"conda\.org"
MACHINE_PATHS = r"/wo" r"rk/|/ro" r"ot/|/fa" r"rm/|/tm" r"p/bash_jobs|/ho" r"me/\w+/|/Us" r"ers/\w+/"
CONFLICT = r"^(={7}$|[<>|]{7} )"
UNFINISHED = r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|raise NotImplemented" r"Error)\b"

UPSTREAM_FOLDERS = ("litgpt/", "config_hub/", "extensions/", "tutorials/", "tests/", ".devcontainer/", ".lightning/")
UPSTREAM_FILES = {
    "conftest.py",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "CODE_OF_CONDUCT.md",
    ".pre-commit-config.yaml",
    ".github/CODEOWNERS",
    ".github/dependabot.yml",
}
SLOW_PACKAGES = ("torch", "lightning", "litgpt", "hydra", "omegaconf", "wandb", "matplotlib", "tokenizers", "pydantic")


@cache
def files(*selection: str) -> tuple[str, ...]:
    """Paths of ours that git tracks or would track, without a synced LitGPT tree; skipped outside a git checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", *(selection or ("--cached", "--others", "--exclude-standard"))]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"not a git checkout, or no git: {error}")
    synced = read_synced(ROOT)
    names = {os.fsdecode(name) for name in done.stdout.split(b"\0") if name} - set(synced.entries() if synced else ())
    return tuple(sorted(name for name in names if (ROOT / name).is_file()))


def lines_with(pattern: str, *, suffix: str = "") -> list[str]:
    """`path:line: text` of every line of every text file that matches."""
    found = []
    for name in files():
        if not name.endswith(suffix):
            continue
        try:
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a picture
        found += [f"{name}:{n}: {line.strip()[:100]}" for n, line in enumerate(lines, 1) if re.search(pattern, line)]
    return found


@cache
def pyproject() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# ---- what files may say ----


def test_no_file_names_a_package_registry() -> None:
    assert not lines_with(REGISTRY_HOSTS)


def test_no_file_names_a_path_of_one_machine() -> None:
    assert not lines_with(MACHINE_PATHS)


def test_no_python_file_is_marked_unfinished() -> None:
    assert not lines_with(UNFINISHED, suffix=".py")


def test_no_mark_of_a_merge_conflict_was_left() -> None:
    assert not lines_with(CONFLICT)


def test_the_patterns_find_what_they_are_for() -> None:
    assert re.search(CONFLICT, "=" * 7) and re.search(CONFLICT, "<" * 7 + " HEAD") and not re.search(CONFLICT, "=" * 8)
    assert re.search(REGISTRY_HOSTS, "https://files.python" + "hosted.org/packages")
    assert re.search(MACHINE_PATHS, "/ho" + "me/someone/project") and not re.search(
        MACHINE_PATHS, "runs/baseline/final"
    )
    assert re.search(UNFINISHED, "# TO" + "DO: later")


def test_links_and_scripts_on_our_pages_exist() -> None:
    missing = []
    for page in PAGES:
        text, place = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", text):
            file = page.parent / target if target else page
            if "://" in target:
                continue
            if not file.exists():
                missing.append(f"{place} links to {target}")
            elif anchor and anchor.removeprefix("#") not in anchors(file):
                missing.append(f"{place} links to {target}{anchor}")
        for name in re.findall(r"light_compute_project/(scripts/\w+\.py)", text):
            if not (PROJECT / name).exists():
                missing.append(f"{place} names {name}")
    assert not missing, "\n".join(missing)


def anchors(page: Path) -> set[str]:
    """The names under which GitHub links to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_projects_readme_presents_every_script() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in SCRIPTS if f"`{p.name}`" not in readme] == []


def test_the_architecture_page_draws_the_arrows_that_the_test_enforces() -> None:
    tree = ast.parse((PROJECT / "tests" / "unit" / "test_import_arrows.py").read_text(encoding="utf-8"))
    assigned = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    levels = ast.literal_eval(assigned["LEVELS"])
    page = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = re.findall(
        r"^ *\d+  (\S.*?)(?:  .*)?$", page.split("```text levels\n", 1)[1].split("```", 1)[0], re.MULTILINE
    )
    assert [line.split() for line in drawn] == [list(level) for level in levels]


# ---- where files may lie ----


def test_nothing_of_ours_lies_on_a_path_that_upstream_owns() -> None:
    names = files()
    wrong = [n for n in names if n.startswith(UPSTREAM_FOLDERS) or n in UPSTREAM_FILES]
    wrong += [
        n for n in names if n.startswith(".github/workflows/") and not n.startswith(".github/workflows/light-compute-")
    ]
    wrong += [n for n in names if n.startswith(".github/ISSUE_TEMPLATE/")]
    assert not wrong


def test_no_catch_all_modules() -> None:
    names = {p.name for p in PROJECT.rglob("*.py")}
    assert not names & {"utils.py", "helpers.py", "common.py", "misc.py"}


def test_source_files_are_one_concept_long() -> None:
    long = {p.relative_to(PROJECT).as_posix(): n for p in SOURCE.rglob("*.py") if (n := line_count(p)) > 350}
    assert not long, "split these files"


def test_commands_only_parse_call_and_print() -> None:
    commands = sorted((SOURCE / "commands").glob("*.py"))
    long = {p.name: n for p in commands if (n := line_count(p)) > 80}
    assert commands and not long, "move logic from these commands into the package they belong to"


def test_scripts_only_call_their_command() -> None:
    assert SCRIPTS and not {p.name: n for p in SCRIPTS if (n := line_count(p)) > 10}


def line_count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


# ---- packaging and CI ----


def test_any_supported_python_serves() -> None:
    project = pyproject()["project"]
    assert isinstance(project, dict)
    assert project["requires-python"] == ">=3.11,<3.14"
    assert not (ROOT / ".python-version").exists(), "it would force one version on everybody"
    assert not files("--cached", "uv.lock", ".python-version", "uv.toml")


def test_workflows_use_pinned_actions_and_no_secrets() -> None:
    assert WORKFLOWS
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        loose = [
            line
            for line in text.splitlines()
            if "uses:" in line and not re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)
        ]
        assert not loose, f"{path.name}: pin by commit, with the version in a comment: {loose}"
        assert "secrets." not in text, path.name
        content = yaml.safe_load(text)
        assert content["permissions"] == {"contents": "read"}, path.name
        assert "concurrency" in content, path.name
        assert all("timeout-minutes" in job for job in content["jobs"].values()), path.name


# ---- starting ----

ASK_FOR_HELP = """
import json, runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
    code = 0
except SystemExit as end:
    code = end.code or 0
sys.stdout.flush()
sys.stderr.write(json.dumps({"code": code, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_help_answers_without_loading_a_slow_package(script: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", ASK_FOR_HELP, str(script)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    report = json.loads(done.stderr.splitlines()[-1])
    assert report["code"] == 0, done.stderr
    assert script.name in done.stdout, "the help text shows how to call the script"
    assert not set(report["modules"]) & set(SLOW_PACKAGES)


def test_every_module_imports_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    assert capsys.readouterr().out == ""


def test_pages_hold_no_placeholders() -> None:
    """A page is written with measured numbers or not at all."""
    for page in (ROOT / "README.md", *PROJECT.rglob("*.md")):
        assert "@" + "@" not in page.read_text(encoding="utf-8"), page
