"""No child interpreter puts the current folder first on its module search path.

`python -c` and `python -m` do so: a `torch.py` in a downloaded model's folder would be run. `-P` leaves it out.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def interpreters(text: str) -> list[tuple[int, list[str]]]:
    """Line and options of every list or call that starts with `sys.executable`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        elements = (
            node.elts if isinstance(node, ast.List | ast.Tuple) else node.args if isinstance(node, ast.Call) else []
        )
        if elements and ast.unparse(elements[0]) == "sys.executable" and len(elements) > 1:
            options = [str(each.value) for each in elements[1:] if isinstance(each, ast.Constant)]
            found.append((node.lineno, options))
    return found


def test_every_child_interpreter_leaves_the_current_folder_out() -> None:
    wrong, seen = [], 0
    for folder in ("src", "benchmarks", "tools", "scripts"):
        for file in sorted((PROJECT / folder).rglob("*.py")):
            for line, options in interpreters(file.read_text(encoding="utf-8")):
                seen += 1
                if {"-c", "-m"} & set(options) and "-P" not in options[
                    : options.index("-c" if "-c" in options else "-m")
                ]:
                    wrong.append(f"{file.relative_to(PROJECT)}:{line} {options}")
    assert not wrong, "\n".join(wrong)
    assert seen >= 6


def test_the_scan_finds_what_it_is_for() -> None:
    assert interpreters("run([sys.executable, '-c', x])") == [(1, ["-c"])]
    assert interpreters("command = (sys.executable, '-P', '-m', 'pip')") == [(1, ["-P", "-m", "pip"])]


def test_the_option_keeps_a_hostile_module_of_the_current_folder_out(tmp_path: Path) -> None:
    (tmp_path / "colorsys.py").write_text("print('hostile')")
    for option, said in (([], "hostile"), (["-P"], "")):
        done = subprocess.run(
            [sys.executable, *option, "-c", "import colorsys"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == said
