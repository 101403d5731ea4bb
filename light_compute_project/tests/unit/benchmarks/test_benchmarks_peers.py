"""Which programs can be compared, what each is given to do, and that it is the same work."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.children.random_model import make_model
from benchmarks.generating import GenerateWork, generate_work
from benchmarks.options import VERBS, parse
from benchmarks.peers import GENERATE_PEERS, SERVE_PEERS, TRAIN_PEERS, choose_peers
from benchmarks.programs import litgpt, llamacpp, nanogpt, ours
from benchmarks.provenance import provenance
from benchmarks.training import TrainWork

from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.model import GPTConfig

PROJECT = Path(__file__).resolve().parents[3]
SCRIPT, PAGE = PROJECT / "scripts" / "benchmark.py", PROJECT / "docs" / "benchmark.md"


@pytest.fixture
def nanogpt_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "nano"
    folder.mkdir()
    for name in nanogpt.FILES:
        (folder / name).write_text(f"# stands for {name}\n", encoding="utf-8")
    return folder


@pytest.fixture
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


def test_names_families_and_all(nanogpt_dir: Path, everything_installed: None) -> None:
    def chosen(text: str) -> tuple[str, ...]:
        return choose_peers(text, known=GENERATE_PEERS, nanogpt_dir=nanogpt_dir)

    assert chosen("") == ()
    assert chosen("litgpt-bf16, nanogpt,litgpt-bf16") == ("litgpt-bf16", "nanogpt")
    assert chosen("llamacpp") == ("llamacpp-f16", "llamacpp-q8_0", "llamacpp-q4_0")
    assert chosen("litgpt") == ("litgpt",)
    assert chosen("all") == tuple(GENERATE_PEERS)


def test_every_server_is_given_the_same_model_and_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = []
    monkeypatch.setattr(llamacpp, "run_child", lambda function, job, **options: exported.append((function, job)))
    made = {"model": {"block_size": 256}}
    work = GenerateWork(
        name="x",
        checkpoint=tmp_path / "model",
        cache=tmp_path,
        made=made,
        new_tokens=5,
        repeats=1,
        threads=2,
        device="cpu",
    )
    for name, make in SERVE_PEERS.items():
        folder = tmp_path / name
        folder.mkdir()
        spec = make(work, label=name, slots=32)
        assert spec.label == name and not spec.ours and spec.command(folder, 8123)[0] == sys.executable
        job = json.loads((folder / "job.json").read_text())
        assert (job["slots"], job["context"], job["threads"], job["port"]) == (32, 256, 2, 8123)
        assert exported[-1] == (
            "llamacpp:export",
            {"checkpoint": str(tmp_path / "model"), "file": job["file"], "kind": name.split("-")[1]},
        )
    own = ours.serve(work, label="ours", slots=32).command(tmp_path, 8123)
    assert own[own.index("--slots") + 1] == "32" and str(tmp_path / "model") in own


def test_an_unknown_peer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"--against nanogtp\n.*nanogpt-compiled"):
        choose_peers("nanogtp", known=TRAIN_PEERS, nanogpt_dir=None)


def test_nanogpt_needs_its_folder_and_its_files(nanogpt_dir: Path) -> None:
    with pytest.raises(ConfigError, match="without --nanogpt_dir"):
        choose_peers("nanogpt", known=TRAIN_PEERS, nanogpt_dir=None)
    (nanogpt_dir / "model.py").unlink()
    with pytest.raises(ConfigError, match=r"no model\.py there"):
        choose_peers("nanogpt-compiled", known=TRAIN_PEERS, nanogpt_dir=nanogpt_dir)


def test_a_missing_package_names_the_group_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else object())
    with pytest.raises(EnvironmentProblem, match=r"not installed here: gguf\n.*\n.*uv sync --group peers"):
        choose_peers("llamacpp-f16", known=GENERATE_PEERS, nanogpt_dir=None)


def test_every_name_makes_the_program_of_that_name(work: TrainWork, nanogpt_dir: Path, tmp_path: Path) -> None:
    work = replace(work, nanogpt_dir=nanogpt_dir)
    made = [make(work, label=name) for name, make in TRAIN_PEERS.items()]
    assert [spec.label for spec in made] == list(TRAIN_PEERS)
    assert not any(spec.ours for spec in made)
    for number, spec in enumerate(made):
        folder = tmp_path / f"trial-{number}"
        folder.mkdir()
        assert spec.command(folder)[0] == sys.executable


def test_nanogpt_gets_our_shape_our_ids_and_unmodified_files(work: TrainWork, nanogpt_dir: Path) -> None:
    work = replace(work, nanogpt_dir=nanogpt_dir)
    folder = nanogpt_dir.parent / "trial"
    folder.mkdir()
    command = TRAIN_PEERS["nanogpt-compiled"](work, label="nanogpt-compiled").command(folder)
    assert command[1] == "train.py" and "--compile=True" in command
    for name in nanogpt.FILES:
        assert (folder / name).read_bytes() == (nanogpt_dir / name).read_bytes()
    assert (folder / "data" / nanogpt.DATASET / "train.bin").read_bytes() == (work.corpus / "train.bin").read_bytes()
    assert pickle.loads((folder / "data" / nanogpt.DATASET / "meta.pkl").read_bytes()) == {"vocab_size": 128}
    assert not (nanogpt_dir / "data").exists()


def test_nanogpts_flags_are_the_work(work: TrainWork) -> None:
    given = {name: str(value) for name, value in nanogpt.flags(work, compiled=False).items()}
    expected = {
        "n_layer": "2",
        "n_head": "4",
        "n_embd": "64",
        "block_size": "32",
        "batch_size": "4",
        "gradient_accumulation_steps": "3",
        "max_iters": "39",  # it counts from 0 and includes the last
        "eval_interval": "39",
        "bias": "False",
        "dtype": "float32",
        "grad_clip": "1.0",
        "beta2": "0.99",
    }
    assert {name: given[name] for name in expected} == expected
    on_gpu = nanogpt.flags(replace(work, device="cuda"), compiled=True)
    assert (on_gpu["dtype"], on_gpu["device"]) == ("bfloat16", "cuda")


def test_litgpts_settings_are_the_work(work: TrainWork) -> None:
    settings = litgpt.settings(work, precision="bf16-mixed")
    model, train = settings["model_config"], settings["train"]
    assert (model["n_layer"], model["n_head"], model["n_embd"], model["block_size"]) == (2, 4, 64, 32)
    assert model["padded_vocab_size"] == model["vocab_size"] == 128
    assert train["max_tokens"] == 40 * 12 * 32 and train["tie_embeddings"] is True
    assert (train["global_batch_size"], train["micro_batch_size"], train["max_norm"]) == (12, 4, 1.0)
    assert settings["optimizer"]["init_args"] == {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.1}
    assert settings["precision"] == "bf16-mixed"


def test_ours_is_the_training_script_with_threads_and_variants(work: TrainWork, tmp_path: Path) -> None:
    command = ours.train(work, label="fp32", overrides=["trainer.precision=32-true"]).command(tmp_path)
    assert command[1].endswith("scripts/train.py") and command[2] == "+experiment=bench_small"
    assert {"trainer.max_steps=40", "trainer.threads=2", "trainer.log_interval=2"} <= set(command)
    assert command[-1] == "trainer.precision=32-true"


def test_hugging_faces_job_is_the_work(work: TrainWork, tmp_path: Path) -> None:
    TRAIN_PEERS["hf-bf16"](work, label="hf-bf16").command(tmp_path)
    job = json.loads((tmp_path / "job.json").read_text(encoding="utf-8"))
    assert (job["n_layer"], job["block_size"], job["vocabulary"], job["micro_batch_size"]) == (2, 32, 128, 4)
    assert (job["batch_size"], job["steps"], job["bf16"], job["device"]) == (12, 40, True, "cpu")


def test_generators_read_one_checkpoint_and_one_prompt(tmp_path: Path, nanogpt_dir: Path) -> None:
    made = {"model": {"n_layer": 1}, "prompt": "It was", "prompt_ids": [1, 2, 3], "vocab_size": 66}
    work = GenerateWork(
        name="10m",
        checkpoint=tmp_path / "model",
        cache=tmp_path / "cache",
        made=made,
        new_tokens=20,
        repeats=2,
        threads=2,
        device="cpu",
        nanogpt_dir=nanogpt_dir,
    )
    specs = [make(work, label=name) for name, make in GENERATE_PEERS.items()]
    assert [spec.label for spec in specs] == list(GENERATE_PEERS)
    for number, spec in enumerate(specs):
        folder = tmp_path / f"trial-{number}"
        folder.mkdir()
        command = spec.command(folder)
        if spec.label.startswith("litgpt"):
            assert command[command.index("--num_samples") + 1] == "3"
            assert command[command.index("--prompt") + 1] == "It was"
        else:
            job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
            assert (job["prompt_ids"], job["new_tokens"], job["repeats"]) == ([1, 2, 3], 20, 2)
            assert job.get("random", True)


def test_a_checkpoint_of_the_users_is_generated_from(tmp_path: Path) -> None:
    """The facts are those of the directory, and llama.cpp gets its weights and not random ones."""
    job = {"overrides": ["model=tiny"], "vocab_size": 66, "prompt_tokens": 4, "new_tokens": 4}
    facts_when_made = make_model({**job, "folder": str(tmp_path)})
    checkpoint_dir = tmp_path / "model"
    config = GPTConfig.from_checkpoint(checkpoint_dir)
    n_tokens = config.block_size - 4
    arguments = f"generate --model {checkpoint_dir} --prompt_tokens 4 --new_tokens {n_tokens}"
    options = parse(arguments.split(), description="")
    work = generate_work(options, folder=tmp_path)
    assert (work.name, work.checkpoint, work.random) == (checkpoint_dir.name, checkpoint_dir, False)
    costs = ("flops_per_token",)  # depend on the number of new tokens
    assert {k: v for k, v in work.made.items() if k not in costs} == {
        k: v for k, v in facts_when_made.items() if k not in costs
    }
    (tmp_path / "trial").mkdir()
    GENERATE_PEERS["llamacpp-q4_0"](work, label="x").command(tmp_path / "trial")
    job = json.loads((tmp_path / "trial" / "job.json").read_text(encoding="utf-8"))
    assert (job["random"], job["checkpoint"], job["kind"]) == (False, str(checkpoint_dir), "q4_0")

    options.new_tokens += 1
    with pytest.raises(ConfigError, match=f"at most {config.block_size}, the context"):
        generate_work(options, folder=tmp_path)
    options.against = ("hf",)
    with pytest.raises(ConfigError, match="--model --against hf"):
        generate_work(options, folder=tmp_path)


def test_a_shape_and_a_model_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(["generate", "--shape", "135m", "--model", "smollm2"], description="")
    assert "not allowed with argument --shape" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        "train --rounds 0",
        "generate --repeats 0",
        "generate --new_tokens 1",
        "generate --batch 4,4",
        "generate --precision bf17",
        "serve --streams ,",
        "serve --streams 0",
        "serve --streams 1,1",
        "serve --rounds 0",
        "serve --requests 0",
        "ladder --rungs 2b",
        "loss-memory --chunks 0,0",
        "loss-memory --tokens 0",
    ],
)
def test_wrong_settings_are_refused(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(arguments.split(), description="")
    _, option, value = arguments.split()
    assert f"argument {option}: {value!r} given, " in capsys.readouterr().err


def test_options_have_one_spelling_and_keep_the_old_one(nanogpt_dir: Path) -> None:
    options = parse(["train", "--nanogpt-dir", str(nanogpt_dir), "--lap_timeout", "5"], description="", command="x")
    assert (options.nanogpt_dir, options.trial_timeout, options.command) == (nanogpt_dir, 5.0, "x")
    with pytest.raises(ConfigError, match="--ours 'fp32'"):
        parse(["train", "--ours", "fp32"], description="")


def test_a_trial_needs_steps_to_be_measured(work: TrainWork) -> None:
    with pytest.raises(ConfigError, match="--steps 3"):
        replace(work, steps=3)


def test_every_command_of_the_page_is_accepted(nanogpt_dir: Path, everything_installed: None) -> None:
    lines = PAGE.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if "scripts/benchmark.py " in line]
    verbs = [
        parse([str(nanogpt_dir) if word == "FOLDER" else word for word in words[4:]], description="").verb
        for words in commands
    ]
    assert set(verbs) == set(VERBS)


def test_provenance_names_the_copy_of_nanogpt(nanogpt_dir: Path) -> None:
    facts: dict[str, Any] = provenance("python benchmark.py", peers=("nanogpt",), nanogpt_dir=nanogpt_dir)
    assert facts["command"] == "python benchmark.py"
    assert set(facts["nanogpt"]["sha256"]) == set(nanogpt.FILES) and facts["nanogpt"]["commit"] is None
    assert "nanogpt" not in provenance("x", peers=("litgpt",), nanogpt_dir=nanogpt_dir)


def test_help_and_mistakes_answer_without_torch() -> None:
    code = (
        "import runpy, sys; sys.argv = ['benchmark.py', *sys.argv[2:]]\n"
        "try: runpy.run_path(sys.orig_argv[3], run_name='__main__')\n"
        "except SystemExit as end: print('code', end.code, 'torch' in sys.modules)"
    )
    for arguments, expected in ((["train", "--help"], "code 0"), (["train", "--against", "x"], "code 2")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(SCRIPT), *arguments], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip().endswith(f"{expected} False"), done.stdout + done.stderr
