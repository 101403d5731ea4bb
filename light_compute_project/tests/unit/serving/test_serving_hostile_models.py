"""A damaged, hostile or odd-named folder is skipped or described as far as it can be; the others are served."""

import os
import time
import zipfile

import pytest

from litgpt_core.checkpoint.discovery import discover
from litgpt_core.checkpoint.parameters import parameters_of
from litgpt_core.core.errors import ConfigError
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.prompts import template_process
from litgpt_core.serving.model_facts import suggested_messages
from litgpt_core.tokenizers import ByteSettings, CharSettings, train

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


def _deep_checksums(model):
    (model / "checksums.json").write_text("[" * 200_000)


def _strange_archive(model):
    (model / "checksums.json").unlink()
    data = bytearray((model / "lit_model.pth").read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 6] = 99  # the version that is needed to extract
    (model / "lit_model.pth").write_bytes(data)


def _undecodable_member(model):
    (model / "checksums.json").unlink()
    with zipfile.ZipFile(model / "lit_model.pth", "a") as archive:
        archive.writestr("x/\xe9.pkl", b"")
    data = (model / "lit_model.pth").read_bytes().replace("x/\xe9".encode(), b"x/\xff\xfe")
    (model / "lit_model.pth").write_bytes(data)


def _huge_config(model):
    (model / "checksums.json").unlink()
    (model / "model_config.yaml").write_text("n_layer: 300000000\nn_head: 2\nn_embd: 32\nblock_size: 96\n")


def _deep_config(model):
    (model / "checksums.json").unlink()
    (model / "model_config.yaml").write_text("name: " + "[" * 5000)


def _deep_style(model):
    (model / "checksums.json").unlink()
    (model / "chat_style.json").write_text("[" * 200_000)


HOSTILE = [_deep_checksums, _strange_archive, _undecodable_member, _huge_config, _deep_config, _deep_style]


def test_hostile_folders_end_neither_the_list_nor_an_answer(client, make_model, tmp_path, monkeypatch):
    monkeypatch.setattr("litgpt_core.serving.models.RESCAN_S", 0.0)
    for change in HOSTILE:
        change(make_model(f"bad{change.__name__}", seed=2))
    for name in (os.fsdecode(b"m\xe9l"), "a\n\x1b[31mb"):
        make_model("odd", seed=3).rename(tmp_path / "models" / name)
    here = client()
    start = time.monotonic()
    listed = {model["id"]: model for model in here.get("/v1/models").json()["data"]}
    assert listed["chatty"]["chat"] is True and time.monotonic() - start < 10
    assert all(name.isprintable() for name in listed)
    assert here.post(CHAT, json=HELLO).status_code == 200
    for change in HOSTILE:
        answer = here.post(CHAT, json=HELLO | {"model": f"bad{change.__name__}"})
        assert answer.status_code in (404, 500) and str(tmp_path) not in answer.text, (change, answer.text)
    assert here.post(CHAT, json=HELLO | {"model": "m\u00e9l"}).status_code == 404
    found = discover([tmp_path / "models"])
    assert sum("rename it" in line for line in found.skipped) == 2


def test_sizes_are_bounded_before_anything_is_built():
    small = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 96, "vocab_size": 256}
    for name, value in {"n_layer": 3 * 10**8, "n_embd": 10**12, "block_size": 10**15, "vocab_size": 10**400}.items():
        start = time.monotonic()
        with pytest.raises(ConfigError, match=f"{name}=.* is more than"):
            GPTConfig(**(small | {name: value}))
        assert time.monotonic() - start < 1
    with pytest.raises(ConfigError, match="n_layer x n_expert"):
        GPTConfig(
            **(small | {"n_layer": 10_000, "mlp_class_name": "LLaMAMoE", "n_expert": 5000, "n_expert_per_token": 1})
        )


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_without_building_and_tied_ones_once(make_model, tied):
    directory = make_model("m", tied=tied)
    config = GPTConfig.from_checkpoint(directory)
    assert not config.tie_embeddings, "the config does not say it"
    expected = GPT(GPTConfig(**(vars(config) | {"tie_embeddings": tied}))).num_parameters()
    assert parameters_of(directory, config) == expected


def test_the_list_and_the_page_count_tied_embeddings_once(client, make_model, monkeypatch):
    monkeypatch.setattr("litgpt_core.serving.models.RESCAN_S", 0.0)
    here = client()
    make_model("tied", tied=True)
    counts = {model["id"]: model["parameters"] for model in here.get("/v1/models").json()["data"]}
    assert counts["chatty"] - counts["tied"] == 300 * 32


def test_suggestions_are_the_runs_own_prompts_that_the_model_can_read(tmp_path, client):
    letters = train(CharSettings(), ["def clas import\n"])
    (tmp_path / "hyperparameters.yaml").write_text(
        'trainer:\n  sample_prompts: ["def ", "\\n", "class é", "import "]\n'
    )
    assert suggested_messages(tmp_path, letters, chat=False) == ("def ", "import ")
    (tmp_path / "hyperparameters.yaml").write_text("[" * 1000)
    assert suggested_messages(tmp_path, letters, chat=True) == ()
    assert len(suggested_messages(tmp_path, train(ByteSettings(), []), chat=True)) == 3
    [own] = client().get("/v1/models").json()["data"]
    assert own["loaded"] and len(own["suggestions"]) == 3


@pytest.mark.parametrize(
    ("template", "status", "code"),
    [
        ("{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}", 500, "chat_template_failed"),
        ("{{ nothing.here.at_all }}", 500, "chat_template_failed"),
        ("{{ raise_exception('only one turn') }}", 400, "chat_template_refused"),
    ],
)
def test_a_templates_failure_has_its_own_code_and_stops_nobody_else(
    client, make_model, tmp_path, monkeypatch, template, status, code
):
    monkeypatch.setattr(template_process, "SECONDS", 0.5)
    monkeypatch.setattr("litgpt_core.serving.models.RESCAN_S", 0.0)
    here = client()
    bad = make_model("bad")
    (bad / "checksums.json").unlink()
    (bad / "chat_style.json").unlink()
    (bad / "chat_template.jinja").write_text(template)
    answer = here.post(CHAT, json=HELLO | {"model": "bad"})
    found = answer.json()["error"]
    assert (answer.status_code, found["code"]) == (status, code) and str(tmp_path) not in answer.text, found
    assert "chat_template.jinja" in found["message"]
    assert here.post(CHAT, json=HELLO).status_code == 200


def test_a_loaded_model_answers_while_the_disk_hangs(client, monkeypatch):
    monkeypatch.setattr("litgpt_core.serving.models.RESCAN_S", 0.0)
    monkeypatch.setattr("litgpt_core.serving.models.SCAN_PATIENCE_S", 0.05)
    here = client()
    monkeypatch.setattr("litgpt_core.serving.models.ModelPool._scan", lambda self: time.sleep(2))
    start = time.monotonic()
    assert here.post(CHAT, json=HELLO).status_code == 200
    assert time.monotonic() - start < 1.5
