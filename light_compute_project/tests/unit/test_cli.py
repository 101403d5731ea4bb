"""`lcp`: every verb answers --help without a slow library, other names lead to the same verb, mistakes are answered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from litgpt_core import cli
from litgpt_core.core import checkout, command_line
from litgpt_core.core.errors import ConfigError, EnvironmentProblem

SLOW = {"torch", "lightning", "litgpt", "hydra", "omegaconf", "wandb", "matplotlib", "tokenizers", "pydantic", "numpy"}
PROJECT = Path(__file__).resolve().parents[2]

EVERY_HELP = """
import contextlib, io, json, sys
from litgpt_core import cli
found = {}
for verb in (None, *cli.VERBS):
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        try:
            code = cli.main([*([verb] if verb else []), "--help"])
        except SystemExit as end:
            code = end.code
    found[verb or ""] = [code, text.getvalue(), sorted({name.split(".")[0] for name in sys.modules})]
print(json.dumps(found))
"""


def test_every_verb_answers_help_without_a_slow_library() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY_HELP], capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(done.stdout)
    assert set(found) == {"", *cli.VERBS}
    for verb, (code, text, modules) in found.items():
        assert code == 0, verb
        assert not SLOW & set(modules), (verb, SLOW & set(modules))
        assert (f"lcp {verb}" if verb else "usage: lcp") in text, verb
    assert all(verb in found[""][1] for verb in cli.VERBS)


def test_importing_the_package_or_the_command_loads_nothing_slow() -> None:
    code = "import sys, litgpt_core, litgpt_core.cli; print(sorted({n.split('.')[0] for n in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not any(f"'{name}'" in done.stdout for name in (*SLOW, "yaml", "argparse.__main__"))


def test_every_script_is_a_verb_and_every_verb_a_module() -> None:
    scripts = {path.stem for path in (PROJECT / "scripts").glob("*.py")}
    modules = {module for module, _ in cli.VERBS.values()}
    assert scripts <= modules
    parts = {"convert_data", "inspect_data"}  # of `lcp data`, imported by its module
    found = {path.stem for path in Path(cli.__file__).with_name("commands").glob("*.py")}
    assert found == modules | parts | {"__init__"}
    for script in scripts:
        verb = cli.ALIASES.get(script, (script,))[0]
        assert f'run("{verb}")' in (PROJECT / "scripts" / f"{script}.py").read_text(encoding="utf-8")
        assert cli.VERBS[verb][0] == script


def test_other_names_lead_to_the_same_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from litgpt_core.commands import train

    given: list[list[str]] = []
    monkeypatch.setattr(train, "main", lambda arguments: given.append(list(arguments)))
    assert cli.main(["sweep", "+experiment=smoke", "seed=1,2"]) == 0
    assert given == [["-m", "+experiment=smoke", "seed=1,2"]]
    with pytest.raises(SystemExit) as end:
        cli.main(["merge-lora", "--help"])
    assert end.value.code == 0 and "--base" in capsys.readouterr().out
    assert cli.main([]) == 0 and "commands:" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out.startswith("lcp ")


def test_an_unknown_verb_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean train") as problem:
        cli.main(["trian", "+experiment=smoke"])
    assert problem.value.exit_code == 2


def test_what_needs_a_checkout_says_so_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkout.in_checkout()
    monkeypatch.setattr(checkout, "PROJECT_DIR", tmp_path)
    assert not checkout.in_checkout()
    with pytest.raises(EnvironmentProblem, match="checkout"):
        cli.main(["sync", "--verify"])
    assert " sync " not in cli.overview() and " train " in cli.overview()
    assert command_line.shown_command("chat", "runs/a b") == "lcp chat 'runs/a b'"
    monkeypatch.chdir(tmp_path)
    assert checkout.working_folder() == tmp_path
