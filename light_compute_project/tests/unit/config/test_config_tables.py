"""The configuration page says what the code says: every setting, with its type, default and meaning."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import textwrap
import typing
from pathlib import Path

import pytest
from docs.generate import config_tables as config_docs

from litgpt_core.config import compose as config
from litgpt_core.config import source as config_source
from litgpt_core.config.schema import KINDS, MODEL_FORBIDDEN
from litgpt_core.config.trainer import EvaluationSettings, TrainerSettings
from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.errors import ConfigError, LightComputeError
from litgpt_core.model.config import GPTConfig


def settings() -> dict[str, config_docs.Setting]:
    """Every documented setting by its dotted path; where two options share one, the last."""
    return {s.path: s for section in config_docs.sections() for s in section.settings}


def test_the_committed_page_is_what_the_code_renders() -> None:
    page = config_docs.PAGE.read_text(encoding="utf-8")
    assert config_docs.generated_part(page) == config_docs.render(), (
        "settings changed: run python light_compute_project/scripts/document_config.py"
    )


def test_every_setting_says_what_it_means() -> None:
    silent = sorted({s.path for section in config_docs.sections() for s in section.settings if not s.meaning})
    assert not silent, f"write a string under each of these fields: {', '.join(silent)}"


def test_every_class_that_checks_a_config_has_a_table() -> None:
    documented = {s.title for s in config_docs.sections()}
    kinds = {f"{group}: {kind}" for group, options in KINDS.items() for kind in options}
    kinds |= {f"trainer: {field.name}" for field in dataclasses.fields(TrainerSettings)}
    named = {f"{t.split(': ')[0]}: {kind}" for t in documented if ": " in t for kind in t.split(": ")[1].split(", ")}
    assert named == kinds
    assert {"on their own", "run", "model", "optim.schedule"} <= documented


def test_every_field_of_a_class_has_a_row() -> None:
    rows = set(settings())
    groups = typing.get_type_hints(TrainerSettings).values()
    assert {f"trainer.{f.name}" for group in groups for f in dataclasses.fields(group)} <= rows
    allowed = {f.name for f in dataclasses.fields(GPTConfig)} - set(MODEL_FORBIDDEN)
    assert {path.removeprefix("model.") for path in rows if path.startswith("model.")} == allowed | {"source", "path"}
    assert set(config_docs.MODEL_DERIVED) == set(MODEL_FORBIDDEN)


def test_types_and_defaults_are_written_as_in_yaml() -> None:
    found = settings()
    assert found["run.name"].default == "required"
    assert found["run.resume"].type == "`true` or `false` or `auto`"
    assert (found["trainer.micro_batch_size"].type, found["trainer.micro_batch_size"].default) == (
        "whole number or `auto` or `null`",
        "`null`",
    )
    assert (found["optim.betas"].type, found["optim.betas"].default) == ("list of number", "`[0.9, 0.95]`")
    assert found["data.packages"].type == "mapping of text to text"
    assert found["trainer.sample_prompts"].default == '`["\\n"]`', "a newline stays on one line of the table"


def test_a_meaning_is_the_string_under_a_field_or_else_the_comment_beside_it() -> None:
    assert config_docs.field_meanings(EvaluationSettings)["eval_interval"] == "Optimizer steps between validations."
    meanings = config_docs.field_meanings(GPTConfig)
    assert meanings["n_layer"] == "transformer blocks"
    assert meanings["tie_embeddings"].startswith("`lm_head.weight`")


def test_rewriting_touches_only_what_lies_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{config_docs.BEGIN}\nstale words\n{config_docs.END}\nafter\n", encoding="utf-8")
    assert config_docs.update(page) is True
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith(f"{config_docs.END}\nafter\n") and "stale words" not in text
    assert config_docs.generated_part(text) == config_docs.render()
    assert config_docs.update(page) is False


def test_a_page_without_markers_is_refused_and_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{config_docs.END} {config_docs.BEGIN}", encoding="utf-8")
    with pytest.raises(LightComputeError, match="generated part"):
        config_docs.update(page)
    assert page.read_text(encoding="utf-8") == f"{config_docs.END} {config_docs.BEGIN}"


# ---- the hand-written part ----

PAGES = sorted([*PROJECT_DIR.rglob("*.md"), *PROJECT_DIR.parent.glob("README.md")])


LITGPT_CONFIG = """
model_name: pythia-14m
tokenizer_dir: checkpoints/EleutherAI/pythia-14m
data:
  class_path: TextFiles
  init_args:
    train_data_path: my_texts
train:
  max_tokens: 1000000
"""
"""A config of `litgpt pretrain`, for the commands that name one."""


def training_commands() -> list[str]:
    """What follows `train.py` or `lcp train` on every line of a bash block of our pages."""
    commands: set[str] = set()
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            commands |= {m[1].split("  #")[0].strip() for m in re.finditer(r"(?:train\.py|lcp train) ([^\n`]+)", block)}
    return sorted(commands - {"--help"})


@pytest.mark.parametrize("command", training_commands())
def test_commands_on_our_pages_compose_and_check(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"from_litgpt=(\S+)", command):
        (tmp_path / name).write_text(LITGPT_CONFIG, encoding="utf-8")
    arguments = shlex.split(command)
    for word in arguments:
        if word.endswith(".txt") and "=" not in word:
            (tmp_path / word).write_text("some text")
    if "-m" not in arguments:
        config.load(arguments)
        return
    from litgpt_core.search.sweep_grid import make_grid

    names = [point.name for point in make_grid([a for a in arguments if a != "-m"]).points]
    assert len(names) > 1
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert names[0] in pages and names[-1] in pages


def test_the_example_experiment_works_and_its_misspelling_gives_the_message_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = config_docs.PAGE.read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example
    configs = tmp_path / "configs"
    shutil.copytree(config_source.CONFIG_DIR, configs)
    for module in (config, config_source):
        monkeypatch.setattr(module, "CONFIG_DIR", configs)
    mine = configs / "experiment" / "mine.yaml"
    mine.write_text(textwrap.dedent(example[1]), encoding="utf-8")

    loaded = config.load(["+experiment=mine"])
    assert (loaded.run.name, loaded.model.fields["n_layer"], loaded.trainer.stop.max_steps) == ("mine", 8, 500)

    mine.write_text(textwrap.dedent(example[1]).replace("n_layer", "n_layr"), encoding="utf-8")
    for overrides in (["+experiment=mine", "optim.lrr=2e-3"], ["+experiment=mein"]):
        with pytest.raises(ConfigError) as caught:
            config.load(overrides)
        assert f"$ train.py {' '.join(overrides)}\nConfigError: {caught.value}\n" in page
