"""LitGPT's own commands on a directory that we trained, and our training on what they leave.

The commands run one after the other in one process through LitGPT's real entry point, because importing it takes
seconds; `chat` is a process of its own with a piped prompt. What a command lacks on a machine without a network, a GPU
or an optional package is part of the test: it must come as far as that.
"""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.parity

OURS = "runs/ours/final"
WINDOW = 64
DRIVER = """
import contextlib, io, json, sys, time, traceback
from pathlib import Path
import torch
from litgpt.__main__ import PARSER_DATA, main

results = {"commands": sorted(PARSER_DATA), "alias": PARSER_DATA["finetune"] is PARSER_DATA["finetune_lora"]}
for name, arguments in json.loads(Path(sys.argv[1]).read_text()):
    said, error, start = io.StringIO(), "", time.perf_counter()
    sys.argv = ["litgpt", *arguments]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            if arguments[0] == "convert_to_litgpt":
                torch.save(torch.load("out/hf/model.pth"), Path(arguments[1]) / "pytorch_model.bin")
            main()
        except SystemExit as stop:
            error = f"SystemExit: {stop.code}" if stop.code else ""
        except BaseException:
            error = traceback.format_exc()
    results[name] = {"said": said.getvalue(), "error": error, "s": time.perf_counter() - start}
Path("results.json").write_text(json.dumps(results))
"""
WINDOWS = '''
import torch
from litgpt.data import DataModule
from torch.utils.data import DataLoader

class Stateful(DataLoader):
    """LitGPT's checkpoint of a run holds the loader's state; nothing but tensors and plain values may be in it."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

class Windows(DataModule):
    """Chunks of the texts as LitGPT's tokenizer reads them: (B, T + 1) ids, without the package litdata."""

    def __init__(self, text: str = "texts/0.txt") -> None:
        super().__init__()
        self.text = text

    def connect(self, tokenizer=None, batch_size=1, max_seq_length=-1):
        self.tokenizer, self.batch_size, self.length = tokenizer, batch_size, max_seq_length + 1

    def train_dataloader(self):
        with open(self.text) as file:
            ids = self.tokenizer.encode(file.read())
        chunks = [chunk.long() for chunk in ids.split(self.length) if len(chunk) == self.length]
        return Stateful(chunks, batch_size=self.batch_size)

    val_dataloader = train_dataloader
'''
FINETUNE = [
    "--data=JSON",
    "--data.json_path=pairs.json",
    "--data.val_split_fraction=0.25",
    "--data.num_workers=0",
    "--data.prompt_style=codellama",
    f"--train.max_seq_length={WINDOW}",
    "--train.max_steps=2",
    "--train.epochs=1",
    "--train.global_batch_size=2",
    "--train.micro_batch_size=1",
    "--train.lr_warmup_steps=1",
    "--eval.max_new_tokens=4",
    "--eval.max_iters=1",
    "--precision=32-true",
]
SHORT = ["--prompt=the cat", "--max_new_tokens=4", "--precision=32-true"]
ANSWER = ["--prompt=### Response: the cat", *SHORT[1:]]
"""LitGPT's `generate_full` and `generate_adapter` cut at that mark, which only an Alpaca prompt has by itself."""
COMMANDS: list[tuple[str, list[str]]] = [
    ("validate", ["validate", OURS]),
    ("generate", ["generate", OURS, *SHORT]),
    ("generate_speculatively", ["generate_speculatively", OURS, OURS, *SHORT]),
    ("convert_from_litgpt", ["convert_from_litgpt", OURS, "out/hf"]),
    ("convert_to_litgpt", ["convert_to_litgpt", "hub", "--model_name=pythia-14m"]),
    ("validate_converted", ["validate", "hub"]),
    (
        "pretrain",
        [
            "pretrain",
            "pythia-14m",
            f"--initial_checkpoint_dir={OURS}",
            f"--tokenizer_dir={OURS}",
            "--data=windows.Windows",
            "--out_dir=out/pretrain",
            f"--train.max_tokens={4 * WINDOW}",
            f"--train.max_seq_length={WINDOW}",
            "--train.global_batch_size=2",
            "--train.micro_batch_size=2",
            "--train.lr_warmup_steps=1",
            "--eval.max_iters=1",
            "--logger_name=csv",
            "--devices=1",
            "--precision=32-true",
        ],
    ),
    ("convert_pretrained_checkpoint", ["convert_pretrained_checkpoint", "out/pretrain/final", "out/plain"]),
    ("finetune_full", ["finetune_full", OURS, "--out_dir=out/full", *FINETUNE]),
    ("generate_full", ["generate_full", OURS, "--finetuned_path=out/full/final/lit_model.pth", *ANSWER]),
    ("finetune_lora", ["finetune_lora", OURS, "--out_dir=out/lora", *FINETUNE]),
    ("merge_lora", ["merge_lora", "out/lora/final"]),
    ("generate_merged", ["generate", "out/lora/final", *SHORT]),
    ("finetune_adapter", ["finetune_adapter", OURS, "--out_dir=out/adapter", *FINETUNE]),
    (
        "generate_adapter",
        ["generate_adapter", OURS, "--adapter_path=out/adapter/final/lit_model.pth.adapter", *ANSWER],
    ),
    ("finetune_adapter_v2", ["finetune_adapter_v2", OURS, "--out_dir=out/adapter_v2", *FINETUNE]),
    (
        "generate_adapter_v2",
        ["generate_adapter_v2", OURS, "--adapter_path=out/adapter_v2/final/lit_model.pth.adapter_v2", *ANSWER],
    ),
    ("download_list", ["download", "list"]),
    ("download", ["download", "EleutherAI/pythia-14m"]),
    ("evaluate", ["evaluate", OURS, "--tasks=arc_easy", "--out_dir=out/evaluate"]),
    ("serve", ["serve", OURS, "--accelerator=cpu"]),
    ("generate_sequentially", ["generate_sequentially", OURS, *SHORT]),
    ("generate_tp", ["generate_tp", OURS, *SHORT]),
]
"""In this order: later ones read what earlier ones wrote."""

WORKS_HERE = {name for name, _ in COMMANDS} - {"download", "evaluate", "serve", "generate_sequentially"}


@pytest.fixture(scope="module")
def ours(module_shell: Any) -> Path:
    """A trained directory with the shape of a name in LitGPT's registry, as `convert_to_litgpt` needs."""
    folder = Path(module_shell.folder)
    (folder / "texts").mkdir()
    draw = random.Random(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "rain", "fall", "over", "hills"]
    for number in range(8):
        text = " ".join(draw.choice(words) for _ in range(600)) + "\n"
        (folder / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    pairs = [{"instruction": f"the cat sat {words[n]}", "input": "", "output": "on a mat"} for n in range(8)]
    (folder / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    module_shell.train(
        "model=registry",
        "model.name=pythia-14m",
        "model.padding_multiple=50304",
        f"model.block_size={WINDOW}",
        "tokenizer=bpe",
        "tokenizer.vocab_size=280",
        "data=text",
        "data.path=texts",
        "logger=none",
        "trainer.max_steps=4",
        "trainer.global_batch_size=4",
        "trainer.sample_tokens=0",
        "trainer.compile=false",
        "trainer.precision=32-true",
        "optim.schedule.lr_warmup_steps=0",
        "run.name=ours",
    )
    return folder


@pytest.fixture(scope="module")
def results(module_shell: Any, ours: Path) -> dict[str, Any]:
    """What every command said, and where it stopped if it did."""
    (ours / "driver.py").write_text(DRIVER, encoding="utf-8")
    (ours / "windows.py").write_text(WINDOWS, encoding="utf-8")
    (ours / "commands.json").write_text(json.dumps(COMMANDS), encoding="utf-8")
    (ours / "hub").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ours / OURS / name, ours / "hub" / name)
    module_shell.environment |= {"TORCHDYNAMO_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ours)}
    module_shell.run([sys.executable, "driver.py", "commands.json"])
    found = json.loads((ours / "results.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_every_command_of_litgpt_is_known_here(results: dict[str, Any]) -> None:
    driven = {arguments[0] for _, arguments in COMMANDS} | {"chat", "finetune"}
    assert set(results["commands"]) == driven and len(driven) == 22
    assert results["alias"], "`finetune` is `finetune_lora`"


@pytest.mark.parametrize("name", sorted(WORKS_HERE))
def test_a_command_works_on_our_directory(results: dict[str, Any], name: str) -> None:
    assert not results[name]["error"], results[name]["said"][-2000:] + results[name]["error"]


def test_what_the_commands_left(ours: Path, results: dict[str, Any]) -> None:
    for written in ("out/hf/model.pth", "hub/lit_model.pth", "out/lora/final/lit_model.pth", "out/plain/lit_model.pth"):
        assert (ours / written).stat().st_size > 50_000_000, written
    assert "the cat" in results["generate"]["said"] and "the cat" in results["generate_merged"]["said"]
    assert "pythia-14m" in results["download_list"]["said"]


def test_a_round_trip_through_litgpts_converters_keeps_every_weight(ours: Path, results: dict[str, Any]) -> None:
    import torch

    before = torch.load(ours / OURS / "lit_model.pth", weights_only=True)
    after = torch.load(ours / "hub" / "lit_model.pth", weights_only=True)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_commands_without_network_package_or_devices_come_as_far_as_those(results: dict[str, Any]) -> None:
    import torch

    names = {name for name, _ in COMMANDS} - WORKS_HERE
    stopped = {name: results[name]["said"] + results[name]["error"] for name in names}
    assert "offline" in stopped["download"].lower()
    if not torch.cuda.is_available():
        assert "CUDAAccelerator" in stopped["generate_sequentially"]
    for name, package in (("evaluate", "lm_eval"), ("serve", "litserve")):
        if importlib.util.find_spec(package) is None:
            assert package in stopped[name], stopped[name]


def test_chat_answers_a_piped_prompt(module_shell: Any, ours: Path) -> None:
    litgpt = str(Path(sys.executable).with_name("litgpt"))
    command = f"printf 'the cat\\n\\n' | {litgpt} chat {OURS} --max_new_tokens 4 --precision 32-true"
    done = module_shell.run(["bash", "-c", command])
    assert "Reply:" in done.stdout


def test_training_continues_from_litgpts_pretrain(module_shell: Any, ours: Path, results: dict[str, Any]) -> None:
    module_shell.train(*_continue("out/plain", "after-pretrain"))
    assert module_shell.rows("after-pretrain")[0]["train_loss"] < 10.5


def test_a_litgpt_config_continues_from_litgpts_finetune(
    module_shell: Any, ours: Path, results: dict[str, Any]
) -> None:
    config = {
        "model_name": "pythia-14m",
        "initial_checkpoint_dir": "out/full/final",
        "tokenizer_dir": "out/full/final",
        "out_dir": "runs/after-finetune",
        "data": {"class_path": "litgpt.data.TextFiles", "init_args": {"train_data_path": "texts"}},
        "train": {
            "global_batch_size": 4,
            "micro_batch_size": 2,
            "max_tokens": 2 * 4 * WINDOW + 5,
            "max_seq_length": WINDOW,
            "lr_warmup_steps": 0,
        },
        "precision": "32-true",
        "logger_name": "csv",
    }
    (ours / "continue.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = module_shell.train("from_litgpt=continue.yaml", "trainer.sample_tokens=0", "trainer.compile=false")
    assert "model_name" in done.stderr, "ignored settings of the file are reported"
    assert module_shell.rows("after-finetune")[-1]["step"] == 2


def test_what_litgpts_pretrain_recorded_is_a_config_for_us(
    ours: Path, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from litgpt_core.config.compose import load

    monkeypatch.chdir(ours)
    config = load(["from_litgpt=out/pretrain/final/hyperparameters.yaml", "data=text", "data.path=texts"])
    assert (config.init_from, config.trainer.stop.max_steps) == (OURS, 2)
    assert (config.trainer.batch.global_batch_size, config.run.name) == (2, "pretrain")


def _continue(directory: str, name: str) -> list[str]:
    """Two steps of our training on what LitGPT wrote."""
    return [
        f"init_from={directory}",
        "model=pretrained",
        f"model.block_size={WINDOW}",
        "tokenizer=pretrained",
        f"tokenizer.path={OURS}",
        "data=text",
        "data.path=texts",
        "logger=none",
        "trainer.max_steps=2",
        "trainer.global_batch_size=4",
        "trainer.log_interval=1",
        "trainer.sample_tokens=0",
        "trainer.compile=false",
        "trainer.precision=32-true",
        f"run.name={name}",
    ]
