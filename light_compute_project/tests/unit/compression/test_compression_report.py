"""The report refuses savings that save nothing. Every rule has a planted fake."""

import json
from types import SimpleNamespace

import pytest
import torch

from litgpt_core import checkpoint
from litgpt_core.checkpoint.compressed import read_description
from litgpt_core.commands import compress as command
from litgpt_core.compression import speed
from litgpt_core.compression.apply import compress
from litgpt_core.compression.gridded_source import gridded_note, gridded_share
from litgpt_core.compression.methods import run_steps
from litgpt_core.compression.quality import SourceModel
from litgpt_core.compression.recipe import check_recipe, load_recipe
from litgpt_core.compression.report import NotSaved, check_required, make_report
from litgpt_core.compression.state import WorkingModel
from litgpt_core.compression.texts import Domain, calibration_windows, check_disjoint, find_domains
from litgpt_core.compression.verdict import Row, dominator, saves, verdict
from litgpt_core.core.errors import CheckpointError, ConfigError, DataError, EnvironmentProblem
from litgpt_core.tokenizers import ByteSettings, train

SOURCE = Row(name="source", file_bytes=1000, tokens_per_s=[100, 101, 99, 100, 102], peak_mb=[500] * 5, decoder="kernel")


def row(**changes: object) -> Row:
    facts = {"name": "row", "file_bytes": 500, "tokens_per_s": [150] * 5, "peak_mb": [300] * 5, "decoder": "kernel"}
    return Row(**(facts | {"deltas": {"one": (0.0002, 0.0003), "two": (0.0001, 0.0004)}} | changes))


def test_an_honest_saving():
    assert saves(row(), SOURCE) == {"file", "memory", "speed", "quality"}
    assert verdict(row(), SOURCE, [row()]) == "saves file, memory, speed; no loss"


def test_zeros_in_a_dense_file_save_nothing():
    fake = row(file_bytes=1000, tokens_per_s=[100] * 5, peak_mb=[500] * 5, zeros=0.5, deltas={"one": (0.2, 0.01)})
    text = verdict(fake, SOURCE, [fake])
    assert text.startswith("SAVES NOTHING; 50% zeros are stored") and "no loss" not in text


def test_the_same_model_twice_is_not_faster():
    twice = row(file_bytes=1000, tokens_per_s=[101, 100, 104, 99, 107], peak_mb=[500] * 5)
    assert saves(twice, SOURCE) == {"quality"} and "not faster" in verdict(twice, SOURCE, [twice])


def test_one_slow_round_takes_the_claim_away_and_few_rounds_make_none():
    assert "speed" not in saves(row(tokens_per_s=[150, 150, 101, 150, 150]), SOURCE)
    few = row(tokens_per_s=[150] * 4, peak_mb=[300] * 4)
    assert saves(few, SOURCE) == {"file", "quality"} and "speed: 4 of 5 rounds" in verdict(few, SOURCE, [few])


def test_no_loss_needs_the_whole_interval_on_every_domain():
    assert "quality" not in saves(row(deltas={"one": (0.0002, 0.0009)}), SOURCE)
    assert "quality" not in saves(row(deltas={"one": (-0.01, 0.001), "two": (0.002, 0.0001)}), SOURCE)


def test_a_row_that_is_worse_everywhere_is_dominated():
    worse = row(name="svd", file_bytes=800, tokens_per_s=[90] * 5, deltas={"one": (0.3, 0.02)}, decoder="eager")
    text = verdict(worse, SOURCE, [row(name="int8"), worse])
    assert "dominated by int8" in text and "decoded by eager PyTorch" in text
    assert dominator(row(name="int8"), [row(name="int8"), worse]) is None
    closer = row(name="svd", file_bytes=800, deltas={"one": (0.0003, 0.02)})
    assert dominator(closer, [row(name="int8", kl=0.1), closer]) is None, "less different from the source"
    faster = row(name="svd", file_bytes=800, tokens_per_s=[190] * 5, deltas={"one": (0.3, 0.02)})
    assert dominator(faster, [row(name="int8"), faster]) is None


def test_calibration_that_overlaps_what_is_measured_is_refused(domains):
    windows = calibration_windows(domains, tokens=256, length=32)
    check_disjoint(windows, [domain.measurement[:320].view(-1, 32) for domain in domains])
    shifted = domains[0].calibration[5:325].view(-1, 32)
    with pytest.raises(DataError, match="in the calibration text too"):
        check_disjoint(calibration_windows(domains, tokens=2000, length=32), [shifted])


def test_a_source_on_a_grid_is_noticed_and_a_permutation_leaves_it(make, windows):
    work = make()
    assert gridded_share(work.model) == 0 and gridded_note(work.model) is None
    run_steps(work, check_recipe("t", [{"method": "round", "bits": 4}]).steps, windows=None)
    gridded = WorkingModel(work.model)
    assert gridded_share(gridded.model) == 1.0 and "prove nothing" in gridded_note(gridded.model)
    run_steps(gridded, check_recipe("t", [{"method": "permute"}]).steps, windows=None)
    assert gridded_share(gridded.model) < 0.5 and gridded_note(gridded.model) is None  # only two groups to mix


def test_quality_of_a_model_against_itself_and_against_a_noisy_one(make):
    work, tokenizer = make(), train(ByteSettings(), [])
    windows = torch.randint(97, 123, (5, 33), generator=torch.Generator().manual_seed(0))
    source = SourceModel(work.model, {"one": windows}, tokenizer)
    same = source.compare(make().model)["one"]
    assert abs(same.delta) < 1e-3 and same.top_1 > 0.99 and abs(same.kl) < 1e-3 and same.tokens == 160
    noisy = make().model
    with torch.no_grad():
        noisy.lm_head.weight.add_(torch.randn(noisy.lm_head.weight.shape) * 0.3)
    found = source.compare(noisy)["one"]
    assert found.kl > 0.01 and found.top_1 < 1 and found.half_width > 0
    logits = noisy(windows[:, :-1])[..., :256].log_softmax(-1)
    expected = -float(logits.gather(-1, windows[:, 1:, None]).sum()) / 0.6931472 / 160
    assert found.bits_per_byte == pytest.approx(expected, rel=1e-5)


def fake_trial(faster: str):
    def measure(directory, tokens: int) -> dict:
        fast = faster in str(directory)
        facts = {"tokens_per_s": 200 if fast else 100, "peak_mb": 100 if fast else 200}
        return facts | {"decoder": "kernel", "threads": 1}

    return measure


def test_a_report_of_several_recipes(directory, domains, tmp_path):
    made = {
        name: compress(directory, load_recipe(name), tmp_path / name, domains=domains, calibration_tokens=512).directory
        for name in ("int8", "int4", "wanda_50")
    }
    options = {"domains": domains, "tokens": 320, "rounds": 5, "measure": fake_trial("int")}
    report = make_report(checkpoint.resolve(directory), made, **options)
    texts = {line.row.name: line.text for line in report.lines}
    assert texts["int8"].startswith("saves file, memory, speed") and "SAVES NOTHING" in texts["wanda_50"]
    bits = {line.row.name: line.bits_per_weight for line in report.lines}
    assert bits["source, bf16"] == 16 and 4.5 < bits["int4"] < bits["int8"] < 11
    assert "verdict" in report.table() and json.dumps(report.plain())
    check_required(make_report(directory, {"int8": made["int8"]}, **options), ["file", "speed"])
    with pytest.raises(NotSaved, match=r"wanda_50 does not save file, speed") as caught:
        check_required(report, ["file", "speed"])
    assert caught.value.exit_code == 4


def test_rounds_alternate_and_a_failed_trial_is_an_error(tmp_path, monkeypatch):
    order: list[str] = []

    def measure(directory, tokens: int) -> dict:
        order.append(directory.name)
        return {"tokens_per_s": 1, "peak_mb": 1, "decoder": "kernel", "threads": 1}

    speed.measure_speed([tmp_path / name for name in "abc"], rounds=3, tokens=1, measure=measure)
    assert "".join(order) == "abcbcacab"
    failed = SimpleNamespace(returncode=1, stderr="out of memory", stdout="")
    monkeypatch.setattr(speed.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(EnvironmentProblem, match="out of memory"):
        speed.run_trial(tmp_path, 4)


def test_the_command_end_to_end(directory, tmp_path, capsys):
    text = tmp_path / "text.txt"
    letters = torch.randint(97, 123, (6000,), generator=torch.Generator().manual_seed(3))
    text.write_text("".join(map(chr, letters.tolist())))
    options = ["--rounds", "0", "--tokens", "256", "--domain", f"mine={text}", "--calibration_tokens", "512"]
    assert command.main([str(directory), "best_int4", *options]) == 0
    made = tmp_path / "runs" / "small-best_int4"
    description = read_description(made)
    assert description["recipe"] == "best_int4" and description["calibration"]["domains"] == ["mine"]
    record = json.loads((made / "compression.json").read_text())
    assert [row["name"] for row in record["rows"]] == ["source, bf16", "best_int4"] and record["machine"]
    assert (made / "compression.png").stat().st_size > 5000
    assert "one domain only" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="exists"):
        command.main([str(directory), "best_int4", *options])
    with pytest.raises(CheckpointError, match="compressed already"):
        command.main([str(made), "int8", "--no_report"])
    with pytest.raises(NotSaved):
        command.main([str(directory), "int4", *options, "--require", "speed"])


@pytest.mark.parametrize(
    ("content", "message"),
    [("the same words again. " * 400, "in the calibration text too"), ("too little", "tokens to (measure|calibrate)")],
)
def test_text_that_cannot_be_measured_with_is_refused_before_the_work(content, message, directory, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(content)
    options = ["--rounds", "0", "--tokens", "256", "--domain", f"mine={text}", "--calibration_tokens", "512"]
    with pytest.raises(DataError, match=message):
        command.main([str(directory), "best_int4", *options])
    assert not (tmp_path / "runs" / "small-best_int4").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x"], "Give a recipe"),
        (["x", "int4", "--compare", "int8"], "Give a recipe"),
        (["x", "int4", "--require", "sped"], "--require sped"),
        (["x", "int4", "--require", "speed", "--no_report"], "measures what is required"),
    ],
)
def test_mistakes_are_answered_first(arguments, message):
    with pytest.raises(ConfigError, match=message):
        command.main(arguments)


@pytest.mark.parametrize("recipe", ["int4", "gptq_int4", "int8"])
def test_the_last_group_of_a_width_that_groups_do_not_divide_is_filled_up(recipe, directory, domains, tmp_path):
    plain = checkpoint.load_model(directory)
    odd = {name: value.clone() for name, value in plain.state_dict().items()}
    config = plain.config.__class__(**(plain.config.to_full_dict() | {"intermediate_size": 100}))
    for name in odd:
        if "mlp" in name:
            odd[name] = odd[name][:, :100] if "mlp.proj" in name else odd[name][:100]
    options = {"config": config, "tokenizer_dir": directory, "hyperparameters": {}}
    source = checkpoint.save_directory(tmp_path / "odd", weights=odd, **options)
    changes = [] if recipe == "int8" else ["clip=mse"]
    made = compress(
        source, load_recipe(recipe, changes=changes), tmp_path / "out", domains=domains, calibration_tokens=512
    )
    facts = read_description(made.directory)["matrices"]["transformer.h.0.mlp.proj"]
    assert facts["columns"] == 100
    model, ids = checkpoint.load_model(made.directory), torch.tensor([[1, 2, 3]])
    assert model.transformer.h[0].mlp.proj.matrix.codes.shape == (4, 4, 8 if recipe == "int8" else 4, 16, 4)
    stored = checkpoint.load_weights(made.directory)["transformer.h.0.mlp.proj.weight"].float()
    error = (stored - odd["transformer.h.0.mlp.proj.weight"]).norm() / stored.norm()
    assert stored.shape == (64, 100) and error < (0.01 if recipe == "int8" else 0.2)
    assert model(ids).isfinite().all()
    skipped = compress(source, load_recipe("int4", changes=["skip=[mlp.proj]"]), tmp_path / "other").directory
    assert "transformer.h.0.mlp.proj" not in read_description(skipped)["matrices"]


def test_text_that_is_too_short_or_unreadable(directory, domains, tmp_path):
    tokenizer = train(ByteSettings(), [])
    with pytest.raises(DataError, match="at least a window"):
        calibration_windows([Domain("tiny", torch.arange(10), torch.arange(10))], tokens=512, length=32)
    with pytest.raises(DataError, match="NAME=FILE"):
        find_domains(directory, tokenizer, given=["x=missing.txt"])
    found = find_domains(checkpoint.resolve(directory), tokenizer)
    assert [domain.name for domain in found] == ["reference", "python"] and len(found[1].measurement) > 50_000
