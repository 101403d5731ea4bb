"""The config layer: what people type is composed, checked, and refused with the nearest name and the place it was
written.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from litgpt_core.config import source as config_source
from litgpt_core.config.compose import load, normalise_overrides
from litgpt_core.config.diff import differences, flatten
from litgpt_core.core.errors import ConfigError
from litgpt_core.model.optional_settings import DistillSettings, LoRASettings, QatSettings
from litgpt_core.tokenizers.settings import PretrainedSettings

CONFIGS = config_source.CONFIG_DIR
EXPERIMENTS = config_source.option_names("experiment")
FROM_A_CHECKPOINT = {name for name in EXPERIMENTS if config_source.needs_checkpoint(name)}


def problem(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(overrides)
    return str(caught.value)


@pytest.fixture
def experiment_file() -> object:
    """Write a throw-away experiment into configs/experiment and remove it afterwards."""
    written: list[Path] = []

    def write(name: str, body: str) -> None:
        path = CONFIGS / "experiment" / f"{name}.yaml"
        path.write_text("# @package _global_\n" + body, encoding="utf-8")
        written.append(path)

    yield write
    for path in written:
        path.unlink()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_checks(experiment: str) -> None:
    base = ["init_from=somewhere"] if experiment in FROM_A_CHECKPOINT else []
    teacher = ["teacher=somewhere"] if config_source.needs_teacher(experiment) else []
    config = load([f"+experiment={experiment}", *base, *teacher])
    assert config.run.name == experiment
    if base:
        assert (config.model.source, config.model.path, config.tokenizer.kind) == (
            "pretrained",
            "somewhere",
            "pretrained",
        )
        assert "init_from=DIR" in problem(f"+experiment={experiment}")
    else:
        assert config.model.build(vocab_size=256).vocab_size == 256


def test_which_experiments_begin_with_a_checkpoint() -> None:
    assert {"continue_text", "finetune_chat", "qat"} == FROM_A_CHECKPOINT
    assert [name for name in EXPERIMENTS if config_source.needs_teacher(name)] == ["distill"]
    assert config_source.placeholders("distill") == ["distill.teacher=CHECKPOINT"]


def test_training_with_rounded_weights_and_with_a_teacher() -> None:
    config = load(["+experiment=qat", "init_from=somewhere", "qat.bits=8"])
    assert config.qat == QatSettings(bits=8) and config.distill is None and load(["+experiment=smoke"]).qat is None
    assert load(["+experiment=qat", "qat=null", "init_from=somewhere"]).qat is None
    assert load(["+experiment=qat", "qat=null", "lora=default", "init_from=somewhere"]).lora == LoRASettings()
    config = load(["+experiment=distill", "teacher=there", "distill.loss=jsd"])
    assert config.distill == DistillSettings(teacher="there", loss="jsd")
    assert config.tokenizer == PretrainedSettings(path="there"), "the teacher's, where nothing else is named"
    assert "distill.teacher is missing: type teacher=DIR" in problem("+experiment=smoke", "distill=default")
    message = problem("+experiment=smoke", "qat=default", "lora=default", "qat.bits=5", "qat.grouping=64")
    assert "qat: there are no weights to round" in message and "lora with qat" in message
    assert "unknown setting qat.grouping" in problem("init_from=x", "qat=default", "qat.grouping=64")
    assert "qat.bits=5: needed 8, 4, 3 or 2" in problem("init_from=x", "qat=default", "qat.bits=5")


def test_adapters_are_off_unless_asked_for_and_need_a_base() -> None:
    assert load(["+experiment=smoke"]).lora is None
    config = load(["+experiment=finetune_chat", "init_from=somewhere", "lora=default", "lora.r=4"])
    assert config.lora is not None and config.lora == LoRASettings(r=4)
    assert load(["init_from=somewhere", "lora.targets=[mlp]"]).lora == LoRASettings(targets=["mlp"])
    assert "nothing to adapt: type init_from=CHECKPOINT" in problem("+experiment=smoke", "lora=default")
    message = problem("init_from=somewhere", "lora=default", "lora.rank=4", "lora.targets=[querry]")
    assert "unknown setting lora.rank" in message and "lora.targets" in message


def test_early_stopping_is_off_unless_asked_for() -> None:
    settings = load(["+experiment=smoke"]).trainer
    assert settings.stop.patience is None and settings.keeps_best is False
    assert load(["trainer.patience=2"]).trainer.keeps_best is True
    assert load(["trainer.patience=2", "trainer.restore_best=false"]).trainer.keeps_best is False
    assert load(["trainer.restore_best=true"]).trainer.keeps_best is True
    message = problem("trainer.patience=0", "trainer.min_delta=-1")
    assert "trainer.patience=0" in message and "trainer.min_delta=-1" in message


@pytest.mark.parametrize(
    ("group", "option"),
    [
        (g, o)
        for g in ("model", "tokenizer", "data", "optim", "trainer", "logger", "lora", "qat", "distill")
        for o in config_source.option_names(g)
    ],
)
def test_every_option_of_every_group_composes_and_checks(group: str, option: str) -> None:
    extra = {"pretrained": ["init_from=somewhere"]}.get(option, [])
    if option in ("text", "jsonl", "parquet", "arrow", "tokens"):
        extra = ["data.path=README.md"]
    if option == "mixture":
        extra = ["data.sources.web=somewhere"]
    if option == "custom":
        extra = {
            "optim": ["optim.class_path=torch.optim.NAdam"],
            "logger": ["logger.class_path=lightning.pytorch.loggers.CSVLogger"],
            "data": ["data.reader=glob.iglob", "data.kwargs.pathname=x"],
        }[group]
    base = {"lora": ["init_from=somewhere"], "qat": ["init_from=somewhere"], "distill": ["teacher=somewhere"]}
    config = load([f"{group}={option}", *extra, *base.get(group, [])])
    assert getattr(config, group) is not None


def test_every_yaml_begins_with_a_header_comment() -> None:
    for path in CONFIGS.rglob("*.yaml"):
        assert path.read_text(encoding="utf-8").startswith("#"), path


def test_both_ways_of_naming_an_experiment_are_one() -> None:
    assert load(["experiment=smoke"]).plain == load(["+experiment=smoke"]).plain


def test_overrides_win_over_experiments_and_reach_the_settings() -> None:
    config = load(["+experiment=smoke", "trainer.max_steps=7", "optim.schedule.lr_warmup_steps=3", "seed=5"])
    assert (config.trainer.stop.max_steps, config.optim.schedule.lr_warmup_steps, config.seed) == (7, 3, 5)


def test_plain_values_only() -> None:
    def walk(value: object) -> None:
        assert type(value) in (dict, list, str, int, float, bool, type(None)), type(value)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(item)

    walk(load(["+experiment=baseline"]).plain)


def test_unknown_group_option_names_the_nearest() -> None:
    assert "did you mean tiny?" in problem("model=tinyy")
    assert "did you mean smoke?" in problem("+experiment=smok")


def test_unknown_section_and_setting_on_the_command_line() -> None:
    message = problem("model.n_layr=3", "traner.max_steps=4")
    assert "did you mean n_layer?" in message or "n_layer" in message
    assert "traner" in message and "trainer" in message
    assert "on the command line: model.n_layr=3" in message or "traner" in message


def test_misspelt_key_in_an_experiment_file_is_found_with_its_line(experiment_file: object) -> None:
    experiment_file("zz_typo", "run:\n  name: zz\nmodel:\n  n_layr: 6\ntraner:\n  max_steps: 3\n")  # type: ignore[operator]
    message = problem("+experiment=zz_typo")
    assert "2 problems" in message
    assert "unknown setting model.n_layr; did you mean n_layer" in message
    assert "configs/experiment/zz_typo.yaml, line 5" in message
    assert "unknown section 'traner'; did you mean trainer?" in message
    assert "line 6" in message


def test_misspelt_option_in_a_defaults_list_names_the_nearest(experiment_file: object) -> None:
    experiment_file("zz_default", "defaults:\n  - override /model: baselin\n")  # type: ignore[operator]
    assert "did you mean baseline or baseline_half?" in problem("+experiment=zz_default")


def test_broken_yaml_is_a_config_error(experiment_file: object) -> None:
    experiment_file("zz_broken", "run: {name: [\n")  # type: ignore[operator]
    assert "cannot be composed" in problem("+experiment=zz_broken")


def test_wrong_types_say_what_is_needed_and_where() -> None:
    message = problem("trainer.max_steps=many", "optim.lr=fast", "seed=1.5")
    assert "trainer.max_steps='many'" in message and "integer" in message
    assert "optim.lr='fast'" in message and "number" in message
    assert "seed=1.5" in message
    assert "3 problems" in message


def test_problems_inside_different_rooms_come_together() -> None:
    message = problem("trainer.micro_batch_size=5", "trainer.global_batch_size=32", "optim.lr=-1", "model.n_head=3")
    assert "does not divide" in message and "trainer.micro_batch_size=4" in message
    assert "optim.lr=-1" in message
    assert "n_head" in message


def test_vocabulary_size_is_not_a_model_setting() -> None:
    assert "tokenizer.vocab_size" in problem("model.vocab_size=100")


def test_a_setting_of_another_kind_is_refused_not_ignored() -> None:
    assert "unknown setting tokenizer.vocab_size" in problem("tokenizer=char", "tokenizer.vocab_size=100")
    assert "unknown setting optim.matrix_lr" in problem("optim=adamw", "optim.matrix_lr=0.1")


def test_a_class_path_is_checked_with_everything_else() -> None:
    config = load(["optim=custom", "optim.class_path=torch.optim.NAdam", "optim.kwargs.lr=1e-3"])
    assert (config.optim.kind, config.optim.kwargs) == ("custom", {"lr": 1e-3})
    message = problem("optim=custom", "optim.class_path=torch.optim.NAdam", "optim.kwargs.lrr=1e-3", "seed=1.5")
    assert "did you mean lr" in message and "seed=1.5" in message
    assert "optim.class_path=nothing" in problem("optim=custom")
    assert "a subclass of lightning.pytorch.loggers.Logger" in problem(
        "logger=custom", "logger.class_path=torch.nn.GELU"
    )
    message = problem("logger=custom", "logger.class_path=lightning.pytorch.loggers.CSVLogger", "logger.kwargs.nam=x")
    assert "unknown argument logger.kwargs.nam of CSVLogger; did you mean name" in message


def test_an_experiments_rates_for_another_optimizer_are_dropped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    custom = ["+experiment=smoke", "optim=custom", "optim.class_path=torch.optim.NAdam"]
    assert sorted(load(custom).plain["optim"]) == ["class_path", "kind", "kwargs", "schedule"]
    assert "optim.lr=" in caplog.text and "smoke.yaml" in caplog.text
    assert "unknown setting optim.lr" in problem(*custom, "optim.lr=1e-3")


def test_text_without_a_path_says_what_to_type() -> None:
    assert "data.path" in problem("data=text")


def test_argument_without_equals_sign() -> None:
    assert "KEY=VALUE" in problem("nothing-of-this-name")


def test_registry_names_resolve_and_unknown_ones_suggest() -> None:
    config = load(["model=registry", "model.name=Llama-3.2-1B"])
    built = config.model.build(vocab_size=1000)
    assert (built.n_layer, built.n_query_groups, built.vocab_size) == (16, 8, 1000)
    assert "Llama-3.2-1B" in problem("model=registry", "model.name=Llama-3.2-1")


def test_normalisation_adds_what_hydra_wants() -> None:
    assert normalise_overrides(["seed=3", "~init_from", "experiment=smoke", "model=tiny"]) == [
        "++seed=3",
        "~init_from",
        "+experiment=smoke",
        "model=tiny",
    ]


def test_hydras_own_settings_are_refused_because_they_would_do_nothing() -> None:
    assert "no effect" in problem("hydra.run.dir=x")


@pytest.mark.parametrize(
    "path", ["räk", "~/texts", "my texts/a(1).txt", "it's", "a\\b", "C:\\x\\[a]\\", "\\\\server\\(1)"]
)
def test_values_that_hydras_grammar_does_not_take_bare_are_quoted(path: str) -> None:
    assert load(["data=text", f"data.path={path}"]).data.path == path


@pytest.mark.parametrize("name", ["2024", "1.50", "1e3", "007", "true"])
def test_numbers_are_names_too(name: str) -> None:
    assert load([f"run.name={name}"]).run.name == name
    assert load(["data=text", f"data.path={name}"]).data.path == name


@pytest.mark.parametrize(
    "override",
    [
        "data=null", "model=null", "experiment=null", "trainer=5", "seed=99999999999999999999999", "seed=-1",
        "optim.eps=-1", "optim.lr=nan", "optim.lr=inf", "trainer.max_norm=nan", "run.dir=''",
    ],
)  # fmt: skip
def test_nonsense_is_a_config_error_that_names_the_setting(override: str) -> None:
    assert override.split("=")[0] in problem(override)


def test_the_last_of_two_arguments_is_named_because_it_wins() -> None:
    assert "command line: trainer.max_steps=null" in problem("trainer.max_steps=3", "trainer.max_steps=null")


def test_differences_names_every_changed_key() -> None:
    before = {"a": {"b": 1, "c": [1]}, "d": 1}
    after = {"a": {"b": 2, "c": [1]}, "e": 1}
    assert [key for key, _ in differences(before, after)] == ["a.b", "d", "e"]
    assert flatten(before) == {"a.b": 1, "a.c": [1], "d": 1}


def test_checking_a_config_imports_neither_torch_nor_lightning_nor_litgpt() -> None:
    code = (
        "import sys; from litgpt_core.config.compose import load; load(['+experiment=smoke']);"
        "print([m for m in ('torch', 'lightning', 'litgpt') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
