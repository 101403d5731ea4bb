"""The documentation site: every page is in it, every link and anchor leads somewhere, nothing is loaded from elsewhere.

Nightly: Sphinx comes through uv, in an environment of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.core.uv import find_uv

PROJECT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]


class Page(HTMLParser):
    """Ids, links and loaded files of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids, self.links, self.loaded = set[str](), list[str](), list[str]()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attributes}
        self.ids |= {found["id"]} if "id" in found else set()
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag in ("script", "img", "iframe") and "src" in found:
            self.loaded.append(found["src"])
        elif tag == "link" and "href" in found and "stylesheet" in found.get("rel", ""):
            self.loaded.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    try:
        uv = find_uv("Sphinx", variable="PATH", example="a folder with uv")
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))
    out = tmp_path_factory.mktemp("site") / "out"
    pins = str(PROJECT / "docs" / "site" / "requirements.txt")
    run = [uv, "run", "--quiet", "--no-project", "--isolated", "--no-config", "--with-requirements", pins]
    there = subprocess.run([*run, "sphinx-build", "--version"], capture_output=True, text=True, check=False)
    if there.returncode:
        pytest.skip(f"Sphinx cannot be had: {there.stderr.strip()[-300:]}")
    command = [sys.executable, "-P", str(PROJECT / "tools" / "site.py"), str(out), "--uv", uv]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    yield out


def test_every_link_leads_to_a_page_and_an_anchor_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = {file.resolve(): Page(file) for file in site.rglob("*.html")}
    wrong, seen = [], 0
    for file, page in pages.items():
        wrong += [f"{file}: loads {address}" for address in page.loaded if urlsplit(address).netloc]
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            target = target / "index.html" if target.is_dir() else target
            seen += 1
            if not target.is_file():
                wrong.append(f"{file.relative_to(site)}: {link} does not exist")
            elif address.fragment and target in pages and unquote(address.fragment) not in pages[target].ids:
                wrong.append(f"{file.relative_to(site)}: {link} has no such heading")
    assert not wrong, "\n".join(wrong[:20])
    names = {page.stem for page in (PROJECT / "docs").glob("*.md")}
    assert {file.parent.name for file in pages} >= names and seen > 1000
