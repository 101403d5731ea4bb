"""Plans: every strategy is looked at, what does not fit is helped, the best is named, the page is what is computed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from docs.generate import memory_page as cost_page
from docs.generate.optim_plots import DIGEST_KEY, IMAGES, digest
from PIL import Image

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.rates import PEAK_DENSE_FLOPS
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.cost import count_parameters, flops_per_token, forward_flops_per_token
from litgpt_core.model.structure import block_parameters
from litgpt_core.planning import command as planning_command
from litgpt_core.planning.gpus import GPUS, find_gpu
from litgpt_core.planning.memory import memory
from litgpt_core.planning.plan import Option, Terms, best, options, strategies
from litgpt_core.planning.recipe import DeviceLayout, Recipe
from litgpt_core.planning.step_time import exchange_bytes, step_time, tensor_bytes, work_per_token
from litgpt_core.planning.tables import gigabytes, verdict

MODEL = GPTConfig.from_name("Llama-3.2-1B", block_size=2048)
RECIPE = Recipe(model=MODEL, global_batch=512, micro_batch=8)
H100 = find_gpu("h100")


# ---- GPUs ----


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("H100", "H100"), ("h100-pcie", "H100 PCIe"), ("4090", "RTX 4090"), ("NVIDIA RTX 3090", "RTX 3090"),
        ("a100 40gb", "A100 40GB"), ("a100-80gb", "A100"),
    ],
)  # fmt: skip
def test_gpus_are_found_by_what_people_type(typed: str, name: str) -> None:
    assert find_gpu(typed).name == name


def test_an_unknown_gpu_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="--gpu h200"):
        find_gpu("h210")


def test_every_gpu_has_a_peak() -> None:
    assert {gpu.part for gpu in GPUS} <= set(PEAK_DENSE_FLOPS)
    assert all(gpu.peak("bf16") >= gpu.peak("fp32") > 0 for gpu in GPUS)
    assert H100.peak("bf16") == 989e12 and H100.memory == 80e9


# ---- time ----


def test_work_by_hand() -> None:
    """Full checkpointing repeats the blocks' forward pass, chunks that of the head."""
    once, head = flops_per_token(MODEL, seq_length=2048), 2 * 2048 * MODEL.padded_vocab_size
    assert work_per_token(RECIPE) == once
    assert work_per_token(dataclasses.replace(RECIPE, loss_chunk_size=64)) == once + head
    full = work_per_token(dataclasses.replace(RECIPE, checkpointing="full"))
    assert full == once + forward_flops_per_token(MODEL, seq_length=2048) - head
    time = step_time(RECIPE, DeviceLayout(), gpu=H100, network_gbps=400, mfu=0.5)
    assert time.compute == pytest.approx(once * 512 * 2048 / (989e12 * 0.5))
    assert time.exchange == 0 and time.optimizer == pytest.approx(28 * count_parameters(MODEL) / 3.35e12)


def test_exchanged_bytes_by_hand() -> None:
    """DDP: float32 gradients twice. FSDP, every micro-batch: weights twice, those that stay and gradients once."""
    numbers, last = count_parameters(MODEL), sum(p.size for p in block_parameters(MODEL, MODEL.n_layer - 1))
    outer = 2048 * MODEL.padded_vocab_size + 2048 + last  # the embedding does not stay, the last block does
    ddp = exchange_bytes(RECIPE, DeviceLayout(strategy="ddp", devices=8))
    assert ddp == (pytest.approx(2 * 4 * numbers * 7 / 8), 0)
    moved = 2 * (2 * numbers - outer) + 4 * numbers
    assert exchange_bytes(RECIPE, DeviceLayout(strategy="fsdp", devices=8))[0] == pytest.approx(8 * moved * 7 / 8)
    inside, across = exchange_bytes(RECIPE, DeviceLayout(strategy="fsdp", devices=64))
    assert (inside, across) == (pytest.approx(moved * 63 / 64), pytest.approx(moved * 7 / 8))
    inside, across = exchange_bytes(RECIPE, DeviceLayout(strategy="fsdp_hybrid", devices=64))
    assert (inside, across) == (pytest.approx(moved * 7 / 8), pytest.approx(2 * 7 / 8 * 4 * numbers))
    assert exchange_bytes(RECIPE, DeviceLayout()) == (0, 0)
    once = exchange_bytes(RECIPE, DeviceLayout(strategy="fsdp", devices=8, gradients_once=True))[0]
    assert once == pytest.approx((8 * (moved - 4 * numbers) + 4 * numbers) * 7 / 8), "eight micro-batches, one sum"


def test_a_slow_network_is_felt_across_machines_only() -> None:
    def rate(layout: DeviceLayout, gbps: float) -> float:
        return step_time(RECIPE, layout, gpu=H100, network_gbps=gbps).tokens_per_s

    eight, many = DeviceLayout(strategy="fsdp", devices=8), DeviceLayout(strategy="fsdp", devices=64)
    assert rate(eight, 1) == rate(eight, 400)
    assert rate(many, 10) < 0.2 * rate(many, 400)


def test_muon_and_offload_take_longer_steps() -> None:
    layout = DeviceLayout(strategy="fsdp", devices=8)
    plain = step_time(RECIPE, layout, gpu=H100, network_gbps=400)
    muon = step_time(dataclasses.replace(RECIPE, optimizer="muon"), layout, gpu=H100, network_gbps=400)
    away = step_time(RECIPE, dataclasses.replace(layout, cpu_offload=True), gpu=H100, network_gbps=400)
    assert muon.optimizer > plain.optimizer and muon.compute == plain.compute
    assert away.exchange > plain.exchange and away.optimizer > plain.optimizer


# ---- choices ----


def test_strategies_that_make_sense() -> None:
    assert strategies(1, per_node=8) == ["single"]
    assert strategies(8, per_node=8) == ["ddp", "fsdp"]
    assert strategies(16, per_node=8) == ["ddp", "fsdp", "fsdp_hybrid"]
    assert strategies(12, per_node=8) == ["ddp", "fsdp"]


def plan(gpu: str, counts: list[int], micro_batch: int | None = None, **fields: Any) -> list[Option]:
    recipe = dataclasses.replace(RECIPE, **fields)
    return options(recipe, counts=counts, terms=Terms(gpu=find_gpu(gpu)), micro_batch=micro_batch)


def test_options_fit_where_they_say_so_and_are_helped_where_they_must() -> None:
    found = plan("RTX 4090", [1, 8])
    for option in found:
        assert option.fits == (memory(option.recipe, option.layout).peak <= 0.9 * 24e9)
        assert ("trainer.cpu_offload=true" in option.overrides) == option.layout.cpu_offload
    by_name = {(o.layout.devices, o.layout.strategy): o for o in found}
    assert not by_name[8, "ddp"].fits and by_name[8, "fsdp"].fits and not by_name[8, "fsdp"].changes
    small = plan("T4", [8], precision="bf16-mixed", micro_batch=4)[1]
    assert small.fits
    assert small.changes == ("trainer.loss_chunk_size=1024", "trainer.activation_checkpointing=selective")
    assert small.recipe.checkpointing == "selective" and small.recipe.loss_chunk_size == 1024
    assert small.overrides == ["trainer=fsdp", "trainer.micro_batch_size=4", *small.changes]


def test_the_best_gives_most_tokens_per_device_and_the_simplest_wins_a_tie() -> None:
    found = plan("H100", [1, 8, 64])
    chosen = best(found)
    assert chosen is not None and chosen.layout.devices == 1
    assert best([o for o in found if not o.fits]) is None
    eight = [o for o in found if o.layout.devices == 8]
    assert best(eight) is max(eight, key=lambda o: (round(o.time.tokens_per_s, -4), o.layout.strategy == "ddp"))


def test_a_number_that_does_not_divide_has_no_options() -> None:
    assert plan("H100", [3]) == []
    assert plan("H100", [64], micro_batch=16) == []


def test_a_verdict_says_what_to_type_or_that_nothing_fits() -> None:
    terms = Terms(gpu=H100, cost_per_hour=2.0)
    lines = verdict(plan("H100", [1, 8]), terms=terms, tokens=1e9)
    assert lines[0].startswith("cheapest: 1 GPU") and "$" in lines[0] and "trainer.micro_batch_size=" in lines[0]
    assert lines[1].startswith("fastest: 8 GPUs") and "trainer=" in lines[1]
    eight = GPTConfig.from_name("Llama-3.1-8B", block_size=4096)
    [line] = verdict(plan("T4", [1], model=eight), terms=Terms(gpu=find_gpu("T4")), tokens=1e9)
    assert line.startswith("Nothing here fits")


def test_offloaded_state_is_asked_of_the_machine() -> None:
    mixtral = GPTConfig.from_name("Mixtral-8x7B-v0.1", block_size=2048)
    found = plan("H100", [8], model=mixtral)
    [line] = verdict(found, terms=Terms(gpu=H100), tokens=1e9)
    assert "747 GB of host memory per machine" in line and line.endswith("trainer.cpu_offload=true")
    assert found[1].memory.host * 8 == pytest.approx(16 * count_parameters(mixtral), rel=1e-6)


def test_dollars_are_hours_times_devices_times_price() -> None:
    option = plan("H100", [8])[0]
    assert option.dollars(1e9, 2.5) == pytest.approx(1e9 / option.time.tokens_per_s / 3600 * 8 * 2.5)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (4e6, "0"), (2e7, "0.02"), (1.64e9, "1.64"), (16.07e9, "16.1"), (128.4e9, "128")]
)
def test_gigabytes_have_about_three_digits(size: float, text: str) -> None:
    assert gigabytes(size) == text


# ---- the command ----


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert planning_command.run(planning_command.parse(list(arguments), description="")) == 0
    return capsys.readouterr().out


def test_the_command_plans_an_experiment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = command(capsys, "+experiment=bench_gpu_1b", "--gpus", "1,8,64", "--cost_per_hour", "2")
    assert "1,235,814,400 parameters" in said and "activations" in said and "cheapest: 1 GPU" in said
    assert "64 GPUs: trainer.global_batch_size=16" in said and "trainer.global_batch_size=64 would" in said
    monkeypatch.setenv("COLUMNS", "90")
    assert "activations" not in command(capsys, "+experiment=bench_gpu_1b", "--gpus", "1")
    every = command(capsys, "+experiment=baseline", "--gpu", "all", "--gpus", "1")
    assert all(gpu.name in every for gpu in GPUS)


def test_the_command_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ("+experiment=bench_gpu_124m", "--gpus", "8", "trainer.cost_per_hour=3.0", "--json")
    ddp, fsdp = json.loads(command(capsys, *typed))
    assert ddp["strategy"] == "ddp" and fsdp["overrides"][0] == "trainer=fsdp"
    assert ddp["bytes"]["weights"] == 4 * 124_392_960  # without biases, a table of 50,304 rows
    assert ddp["run_dollars"] == pytest.approx(ddp["run_s"] / 3600 * 8 * 3.0)


def test_epochs_count_the_tokens_of_the_prepared_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pages = [
        "".join(f"{word} {number} of page {page}. " for number in range(200)) for page, word in enumerate("abcdefgh")
    ]
    for page, text in enumerate(pages):
        (tmp_path / f"{page}.txt").write_text(text * 3)
    typed = ("data=text", f"data.path={tmp_path}", "tokenizer=byte", f"data.cache_dir={tmp_path}/prepared")
    typed += ("model=tiny", "--gpus", "1", "--json")
    [one], [three] = (json.loads(command(capsys, *typed, f"trainer.epochs={epochs}")) for epochs in (1, 3))
    assert three["run_s"] == pytest.approx(3 * one["run_s"], rel=0.05)
    [fixed] = json.loads(command(capsys, *typed, "trainer.max_steps=1000"))
    assert one["run_s"] < fixed["run_s"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpus", "8,many"], "--gpus 1,8,64"),
        (["--gpus", "0"], "--gpus 1,8,64"),
        (["trainer.precision=bf16-master"], "trainer.precision=auto"),
        (["trainer.max_stepz=1"], "max_steps"),
        (["lora=default", "init_from=x"], "without lora"),
    ],
)
def test_mistakes_are_named(arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        planning_command.run(planning_command.parse(arguments, description=""))


# ---- the page ----


def test_the_page_is_what_the_functions_compute() -> None:
    written = cost_page.generated_part(cost_page.PAGE.read_text(encoding="utf-8"))
    assert written == cost_page.render(), "type `python -m docs.generate.memory_page`"


def test_the_picture_shows_the_numbers_of_today() -> None:
    with Image.open(IMAGES / cost_page.PICTURE) as picture:
        assert picture.info[DIGEST_KEY] == digest(cost_page.curves()), "type `python -m docs.generate.memory_page`"


def test_the_page_covers_what_it_promises() -> None:
    shown = {(layout.devices, layout.strategy) for layout in cost_page.layouts()}
    assert shown == {
        (1, "single"), (8, "ddp"), (8, "fsdp"), (64, "ddp"), (64, "fsdp"), (64, "fsdp_hybrid"),
    }  # fmt: skip
    sizes = [count_parameters(example.recipe.model) / 1e9 for example in cost_page.examples()]
    assert sizes == pytest.approx([0.124, 1.24, 8.03], rel=0.01)


def test_devices_that_compute_together_exchange_and_save_by_hand() -> None:
    """Four sums of the stream a layer; the head on every device; a share of the blocks, and of what is outside all."""
    one, two = DeviceLayout(strategy="fsdp", devices=8), DeviceLayout(strategy="fsdp", devices=8, tensor=2)
    assert (two.readers, two.group, one.readers) == (4, 4, 8)
    sums = 4 * MODEL.n_layer * (512 * 2048 / 4) * MODEL.n_embd * 2 * 2 * 1 / 2
    assert tensor_bytes(RECIPE, two) == sums and tensor_bytes(RECIPE, one) == 0
    head = 3 * 2 * MODEL.n_embd * MODEL.padded_vocab_size
    assert work_per_token(RECIPE, tensor=2) - work_per_token(RECIPE) == head
    whole, divided = memory(RECIPE, one), memory(RECIPE, two)
    assert divided.weights == pytest.approx(whole.weights, rel=0.01)
    assert divided.activations < 0.8 * whole.activations and divided.peak < whole.peak
    with pytest.raises(ConfigError, match="computing together"):
        DeviceLayout(strategy="ddp", devices=8, tensor=2)


def test_blocks_are_divided_where_it_helps() -> None:
    """Where even full checkpointing does not fit, and where there are more devices than sequences."""
    few = plan("H100", [64], global_batch=16)
    assert [o.layout.tensor for o in few] == [8] and few[0].fits and few[0].layout.readers == 8
    assert "trainer.tensor_parallel_size=8" in few[0].overrides and few[0].recipe.micro_batch in (1, 2)
    assert not plan("H100", [64], global_batch=16, optimizer="muon")
    large = dataclasses.replace(MODEL, block_size=524288)
    option = next(o for o in plan("H100", [8], model=large, global_batch=8) if o.layout.strategy == "fsdp")
    assert option.layout.tensor == 8 and option.fits and option.changes[-1] == "trainer.tensor_parallel_size=8"
