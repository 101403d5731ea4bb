"""The page's files themselves: valid JavaScript, nothing from elsewhere, nothing inline, events in arbitrary chunks."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parents[3] / "src" / "litgpt_core" / "serving" / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
FILES = sorted(STATIC.iterdir())

SPLIT_EVERYWHERE = """async (text) => {
    const {EventSplitter} = await import("/static/sse.js");
    const whole = new EventSplitter().push(text);
    const wrong = [];
    for (let cut = 0; cut <= text.length; cut++) {
        const splitter = new EventSplitter();
        const got = [...splitter.push(text.slice(0, cut)), ...splitter.push(text.slice(cut))];
        if (JSON.stringify(got) !== JSON.stringify(whole)) wrong.push(cut);
    }
    return {whole, wrong};
}"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_parses(script, tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    module = tmp_path / f"{script.stem}.{'js' if script.name == 'theme.js' else 'mjs'}"
    module.write_bytes(script.read_bytes())
    done = subprocess.run([node, "--check", str(module)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_import_names_an_export_of_a_file_that_exists():
    wrong = []
    for script in SCRIPTS:
        for names, target in re.findall(r'import \{([^}]*)\} from "\./([\w.]+)";', script.read_text(encoding="utf-8")):
            text = (STATIC / target).read_text(encoding="utf-8")
            exported = set(re.findall(r"export (?:async )?(?:function\*?|class|const|let) (\w+)", text))
            wrong += [f"{script.name}: {n} of {target}" for n in re.findall(r"\w+", names) if n not in exported]
    assert SCRIPTS and not wrong


def test_no_external_resources_and_no_inline_code():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        text = text.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1998/Math/MathML", "")
        assert not re.search(r"https?://|\bdata:image|@import|url\(", text), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    used = {STATIC / name for name in re.findall(r'(?:src|href)="/static/([^"]+)"', page)}
    assert used and all(path.is_file() for path in used)


def test_files_are_small():
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {name: count for name, count in lines.items() if count > 350}


@pytest.mark.serial
def test_events_are_parsed_in_arbitrary_chunks(chat):
    text = ': hello\n\ndata: {"a": 1}\n\ndata:two\r\ndata: lines\r\n\r\nevent: x\ndata: é €\n\n\n\n'
    text += "data: [DONE]\n\ndata: cut"
    found = chat.page.evaluate(SPLIT_EVERYWHERE, text)
    assert found["whole"] == ['{"a": 1}', "two\nlines", "é €", "[DONE]"]
    assert found["wrong"] == []
