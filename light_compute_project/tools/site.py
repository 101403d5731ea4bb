"""The documentation site, from the same pages that are read in the repository: `make site`.

    python light_compute_project/tools/site.py OUT [--uv UV]

Sphinx with MyST makes it, in an environment of its own (`docs/site/requirements.txt`, exact versions with hashes). The
pages are copied next to what they link to, so that their links stay as they are; README.md becomes the first. A link to
a page or heading that does not exist is an error. Standard library only.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

PROJECT = Path(__file__).resolve().parents[1]
SITE = PROJECT / "docs" / "site"
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "environment_info.md")
GROUPS = {
    "Begin": ("guide", "project_status", "baseline_summary", "platforms", "configuration"),
    "Data": ("data", "large_data"),
    "Train": ("optim", "finetuning", "sweeps", "runs", "distributed", "slurm", "deployment_guide", "reliability"),
    "Understand": ("evaluation", "analyze", "reproducibility", "benchmark"),
    "Use": ("inference", "serving", "compression", "export", "huggingface", "pure_python", "containers", "security"),
    "The project": ("architecture", "upstream", "upstream_commands", "log"),
}
"""Which page stands where; a page that is in none is an error."""
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def assemble(source: Path) -> None:
    """Copy the pages, and the files that they link to, into a folder.

    SystemExit: A page is in no group, or a group names a page that does not exist.
    """
    pages = [PROJECT / name for name in PAGES] + sorted((PROJECT / "docs").glob("*.md"))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        _put(page, source)
        for target in _LINK.findall(text):
            linked = (page.parent / unquote(target.partition("#")[0])).resolve()
            if linked.is_file() and linked.is_relative_to(PROJECT) and linked not in pages:
                _put(linked, source)
    shutil.copy(SITE / "conf.py", source / "conf.py")
    listed, found = [name for names in GROUPS.values() for name in names], {page.stem for page in pages[len(PAGES) :]}
    if set(listed) != found or len(listed) != len(found):
        raise SystemExit(f"tools/site.py: GROUPS and docs/ differ: {sorted(set(listed) ^ found) or 'a page twice'}")


def _put(file: Path, source: Path) -> None:
    target = source / file.relative_to(PROJECT)
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix != ".md":
        shutil.copy(file, target)
        return
    text = file.read_text(encoding="utf-8").replace("](../README.md", "](../index.md")
    if file.name == "README.md" and file.parent == PROJECT:
        target, text = target.with_name("index.md"), f"{text}\n{_contents()}"
    target.write_text(text, encoding="utf-8")


def _contents() -> str:
    groups = {name: [f"docs/{page}" for page in pages] for name, pages in GROUPS.items()}
    groups["The project"] += [name.removesuffix(".md") for name in PAGES[1:]]
    return "\n".join(
        "```{toctree}\n:hidden:\n:caption: " + name + "\n\n" + "\n".join(pages) + "\n```\n"
        for name, pages in groups.items()
    )


def build(source: Path, out: Path, *, uv: str) -> int:
    """Run Sphinx on assembled pages; its exit code, 1 where it had a warning."""
    command = [uv, "run", "--quiet", "--no-project", "--isolated", "--no-config", "--python", sys.executable]
    command += ["--with-requirements", str(SITE / "requirements.txt"), "sphinx-build", "-q", "-W", "--keep-going"]
    return subprocess.run([*command, "-b", "dirhtml", str(source), str(out)], check=False, cwd=source).returncode


def main() -> int:
    """Assemble and build."""
    parser = argparse.ArgumentParser(description="Write the documentation site.")
    parser.add_argument("out", type=Path, help="folder of the site")
    parser.add_argument("--uv", default="uv", help="the command uv")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        assemble(Path(folder))
        return build(Path(folder), options.out.absolute(), uv=shutil.which(options.uv) or options.uv)


if __name__ == "__main__":
    sys.exit(main())
