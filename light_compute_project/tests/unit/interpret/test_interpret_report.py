"""`lcp analyze` from a checkpoint directory to files: every view of every kind of model, the page, errors, ablation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import interpret, tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.checkpoint.load import load_model
from litgpt_core.commands.analyze import main
from litgpt_core.core.errors import CheckpointError, ConfigError, DataError, LightComputeError
from litgpt_core.data.prepare import prepare
from litgpt_core.data.settings import TextSettings
from litgpt_core.doctor.model_checks import KINDS, build
from litgpt_core.evaluate.run_data import RunData
from litgpt_core.interpret import loading
from litgpt_core.interpret.analysis import Analysis, compute, plain_numbers, rounded, write_report
from litgpt_core.interpret.drawing import Drawing
from litgpt_core.interpret.findings import findings, threshold
from litgpt_core.interpret.loading import load_subject, windows_of
from litgpt_core.interpret.page import page
from litgpt_core.interpret.subject import Subject
from litgpt_core.interpret.tracing import trace
from litgpt_core.interpret.views import VIEWS
from litgpt_core.model.gpt import GPT

TEXT = "The Quick brown fox (so it is said) jumps over the lazy dog. Then it [the fox] sleeps; Then it wakes.\n" * 40
WIDE = {"vocab_size": 257, "padding_multiple": 260, "block_size": 48, "n_embd": 16}


def tokenizer_of(kind: str = "byte") -> tokenizers.Tokenizer:
    settings = tokenizers.ByteSettings() if kind == "byte" else tokenizers.CharSettings()
    return tokenizers.train(settings, [TEXT])


def save(folder: Path, model: GPT, tokenizer: tokenizers.Tokenizer | None = None) -> Path:
    files = folder.parent / f"{folder.name}-tokenizer"
    (tokenizer or tokenizer_of()).save(files)
    return save_directory(
        folder, weights=model.state_dict(), config=model.config, tokenizer_dir=files, hyperparameters={"seed": 3}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two checkpoints, a final model and a text file."""
    root = tmp_path_factory.mktemp("interpret")
    run = root / "runs" / "tiny"
    for seed, name in enumerate(("checkpoints/step-00000010", "checkpoints/step-00000020", "final")):
        save(run / name, build("GQA + QK-norm", seed=seed, **WIDE))
    (run / "config.yaml").write_text("data: {}\n")
    (root / "text.txt").write_text(TEXT)
    return root


@pytest.fixture(scope="module")
def done(folder: Path) -> Iterator[Analysis]:
    """All views of the run, written once."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield interpret.analyze(
        folder / "runs" / "tiny",
        prompt="The </script><b>x",
        against="The </script><i>y",
        text=folder / "text.txt",
        checkpoints=True,
        effort=0.25,
    )
    torch.set_num_threads(before)


# ---- files


def test_every_view_is_computed_and_written(folder: Path, done: Analysis) -> None:
    names = [view.name for view in VIEWS]
    assert list(done.values["views"]) == names and not done.values["left_out"]
    assert done.folder == folder / "runs" / "tiny" / "analysis"
    assert json.loads((done.folder / "analysis.json").read_text()) == done.values
    pictures = {path.stem for path in done.folder.glob("*.png")}
    assert pictures == set(names)
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in done.folder.glob("*.png"))
    assert not list((folder / "runs" / "tiny" / "final").glob("analysis*"))


def test_a_second_process_draws_the_same_pictures(done: Analysis, tmp_path: Path) -> None:
    assert done.folder is not None
    views = {name: done.values["views"][name] for name in ("budget", "heads")}
    drawing = Drawing(tmp_path)
    for name, values in views.items():
        drawing.draw(name, values)
    write_report({**done.values, "views": views}, tmp_path, drawing=drawing)
    assert drawing.process is not None and drawing.process.returncode == 0
    for name in views:
        assert (tmp_path / f"{name}.png").read_bytes() == (done.folder / f"{name}.png").read_bytes()


def test_pictures_are_drawn_here_where_the_second_process_fails(done: Analysis, tmp_path: Path) -> None:
    values = {**done.values, "views": {"budget": done.values["views"]["budget"]}}
    (tmp_path / "heads.png").write_bytes(b"of an earlier report")
    drawing = Drawing(tmp_path)
    drawing.draw("budget", {})
    write_report(values, tmp_path, drawing=drawing)
    assert drawing.process is not None and drawing.process.returncode == 1
    assert [path.name for path in tmp_path.glob("*.png")] == ["budget.png"]


def test_the_page_holds_all_values_and_asks_nobody_for_anything(done: Analysis) -> None:
    assert done.folder is not None
    text = (done.folder / "report.html").read_text(encoding="utf-8")
    data = text.split('<script type="application/json" id="values">', 1)[1].split("</script>", 1)[0]
    assert json.loads(data) == done.values  # a prompt with </script> does not end it
    assert "default-src 'none'" in text
    assert not [word for word in ("src=", "@import", "url(", "fetch(", "http://", "https://") if word in text]
    for view in VIEWS:
        assert f"  {view.name}: {{\n    how:" in text, f"{view.name} is not drawn by views.js"


def test_findings_state_chance_and_every_view_says_something(done: Analysis) -> None:
    sentences = done.values["findings"]
    assert {finding["view"] for finding in sentences} == {view.name for view in VIEWS}
    of_heads = [finding["text"] for finding in sentences if finding["view"] == "heads"]
    assert any(text.startswith("No induction head: the best score is 0.") and "chance 0." in text for text in of_heads)
    assert any("it does not copy" in text for text in of_heads)
    of_ablation = next(finding["text"] for finding in sentences if finding["view"] == "ablation")
    assert "of 10 tested parts stand out from noise (beyond 2.8 errors)" in of_ablation


def test_values_are_plain_and_finite(done: Analysis) -> None:
    json.dumps(done.values, allow_nan=False)
    assert rounded({"a": [1.23456789, float("nan"), 3]}) == {"a": [1.2346, None, 3]}
    assert page(rounded(done.values)).count("</script>") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_can_be_analysed(kind: str) -> None:
    windows = windows_of(torch.tensor(tokenizer_of().encode(TEXT)).numpy(), 48)
    subject = Subject(
        model=build(kind, **WIDE),
        tokenizer=tokenizer_of(),
        name=kind,
        windows=windows,
        bytes_per_token=1.0,
        counts=torch.bincount(windows.flatten(), minlength=257).numpy(),
        effort=0.1,
        prompt="The fox",
        against="A  fox.",
    )
    names = [view.name for view in VIEWS if view.name not in ("dynamics", "autoencoder", "tuned_lens")]
    values = compute(subject, names, checkpoints=False)
    expected = {"neurons"} if kind == "mixture of experts" else set()
    assert set(values["left_out"]) == expected, values["left_out"]
    assert findings(values["views"])


# ---- the command


def test_the_command_prints_findings_and_where_the_report_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    assert main([str(folder / "runs" / "tiny"), "--only", "lens,budget", "--prompt", "fox", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "parameters, most of them in" in printed
    assert f"{(out / 'report.html').as_posix()} (" in printed and "2 pictures, analysis.json" in printed
    assert set(json.loads((out / "analysis.json").read_text())["views"]) == {"lens", "budget"}
    (out / "notes.png").touch()
    assert main([str(folder / "runs" / "tiny"), "--only", "budget", "--out", str(out)]) == 0
    assert "1 picture, analysis.json" in capsys.readouterr().out
    assert {path.name for path in out.glob("*.png")} == {"budget.png", "notes.png"}


def test_names_are_those_of_this_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder / "runs" / "tiny"), "--names"]) == 0
    printed = capsys.readouterr().out
    assert "N.pattern" in printed and "N.resid_mid" in printed and "N.router" not in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "lenses"], "there is no analysis 'lenses'; did you mean lens"),
        (["--only", "ablation"], "ablation cannot be computed: no held-out text: give --text FILE"),
        (["--only", "patching", "--prompt", "fox"], "no second text"),
        (["--against", "fox"], "--against without --prompt"),
        (["--prompt", "fox", "--against", "foxes"], "--prompt has 3 tokens, --against has 5"),
        (["--prompt", "x" * 49], "--prompt has 49 tokens"),
        (["--layer", "2"], "--layer 2: there is no such layer"),
        (["--text", "missing.txt"], "missing.txt cannot be read"),
        (["--prompt", "x", "--against", "x"], "the model continues --prompt and --against alike"),
        (["--ablate", "L0H0"], "--ablate and --save belong together"),
        (["--ablate", "L2H0", "--save", "x"], "L2H0: there is no layer 2"),
        (["--ablate", "L0H4", "--save", "x"], "L0H4: there is no head 4"),
        (["--ablate", "head", "--save", "x"], "'head' names no part of a model"),
    ],
)
def test_one_clear_error_for_what_is_not_possible(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LightComputeError, match=message.replace("(", r"\(")) as caught:
        main([str(folder / "runs" / "tiny"), *options])
    assert caught.value.needed or "cannot be computed" in caught.value.given
    assert not list(tmp_path.iterdir())


# ---- a checkpoint without some of its parts


def test_an_ablated_checkpoint_computes_what_zero_ablation_does(folder: Path, tmp_path: Path) -> None:
    source = folder / "runs" / "tiny"
    assert main([str(source), "--ablate", "L1H2", "--ablate", "L0M", "--save", str(tmp_path / "without")]) == 0
    model, ablated = load_model(source / "final"), load_model(tmp_path / "without")
    ids = torch.randint(257, (2, 20), generator=torch.Generator().manual_seed(0))

    def without_head(z: torch.Tensor) -> torch.Tensor:
        return z * (torch.arange(4) != 2)[:, None]

    with torch.no_grad(), trace(model, edit={"1.z": without_head, "0.mlp_raw": torch.zeros_like}):
        expected = model(ids)
    with torch.no_grad():
        torch.testing.assert_close(ablated(ids), expected, rtol=1e-5, atol=1e-6)
        assert not torch.equal(model(ids), expected)
    assert "L1H2" in (tmp_path / "without" / "hyperparameters.yaml").read_text()
    with pytest.raises(CheckpointError, match="already exists"):
        main([str(source), "--ablate", "L1H2", "--save", str(tmp_path / "without")])
    assert main([str(source), "--ablate", "L1H2", "--save", str(tmp_path / "without"), "--force"]) == 0


def test_ablating_the_mlp_of_a_mixture_removes_every_expert(tmp_path: Path) -> None:
    model = build("mixture of experts", **WIDE)
    source = save(tmp_path / "moe", model)
    main([str(source), "--ablate", "L1M", "--save", str(tmp_path / "without")])
    ablated = load_model(tmp_path / "without")
    with torch.no_grad(), trace(ablated, ["*.mlp_out"]) as seen:
        ablated(torch.arange(9)[None])
    assert float(seen["1.mlp_out"].abs().max()) == 0.0 < float(seen["0.mlp_out"].abs().max())


# ---- text


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[[tokenizers.Tokenizer], RunData]:
    """Prepared data of a text file, as a run's."""

    def make(kind: Any) -> RunData:
        (tmp_path / "corpus").mkdir(exist_ok=True)
        (tmp_path / "corpus" / "a.txt").write_text(TEXT * 3)
        settings = TextSettings(
            kind="text", name="tiny", path=str(tmp_path / "corpus"), cache_dir=str(tmp_path / "data"), split="tail"
        )
        return RunData.open(prepare(settings, kind).directory)

    return make


def test_held_out_text_is_the_runs_validation_split(
    folder: Path, prepared: Callable[[Any], RunData], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepared(tokenizers.ByteSettings())
    monkeypatch.setattr(loading, "data_of", lambda _: data)
    subject = load_subject(folder / "runs" / "tiny")
    assert subject.windows is not None and subject.windows.size(1) == 49
    assert subject.bytes_per_token == pytest.approx(1.0, rel=0.01)
    assert subject.counts is not None and int(subject.counts.sum()) == data.prepared.train_tokens
    assert [step for step, _ in subject.checkpoints] == [10, 20]
    assert subject.name == "tiny"


def test_data_of_another_tokenizer_is_refused(
    folder: Path, prepared: Callable[[Any], RunData], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepared(tokenizers.CharSettings())
    monkeypatch.setattr(loading, "data_of", lambda _: data)
    with pytest.raises(DataError, match="was prepared with another tokenizer") as caught:
        load_subject(folder / "runs" / "tiny")
    assert "--text FILE" in caught.value.fix


def test_a_checkpoint_with_another_models_tokenizer_is_refused(tmp_path: Path) -> None:
    source = save(tmp_path / "wrong", build("MHA"))  # 61 rows, 257 ids
    with pytest.raises(CheckpointError, match=r"the tokenizer has 25\d ids, the model's embedding 61 rows"):
        load_subject(source)


def test_windows_are_spread_evenly_and_hold_each_target_once() -> None:
    ids = torch.arange(1001).numpy()
    windows = windows_of(ids, 10)
    assert windows.shape == (100, 11) and windows[:, 1:].flatten().tolist() == list(range(1, 1001))
    assert windows_of(torch.arange(5).numpy(), 64).shape == (2, 3)


def test_numbers_for_the_dashboard_are_those_of_the_views(done: Analysis) -> None:
    numbers = plain_numbers(done.values["views"])
    assert numbers["analysis/ablation/loss"] == done.values["views"]["ablation"]["loss"]
    assert numbers["analysis/budget/parameters"] == done.values["views"]["budget"]["parameters"]
    assert all(isinstance(value, (int, float)) for value in numbers.values())


def test_the_threshold_grows_with_the_number_of_tests() -> None:
    assert threshold(1) == pytest.approx(1.96, abs=0.01)
    assert threshold(20) == pytest.approx(3.02, abs=0.01)


def test_a_report_of_a_plain_directory_is_not_put_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "plain", build("MHA", **WIDE))
    done = interpret.analyze("plain", only=["budget"])
    assert done.folder == Path("plain-analysis") and (tmp_path / "plain-analysis" / "report.html").is_file()
    assert "budget" in {finding["view"] for finding in done.values["findings"]}
    with pytest.raises(ConfigError, match="dynamics cannot be computed"):
        interpret.analyze("plain", only=["dynamics"])
