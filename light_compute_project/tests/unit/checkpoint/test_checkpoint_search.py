"""From what a person types to a checkpoint directory."""

import logging

import pytest

from litgpt_core.checkpoint import link, resolve, step_name
from litgpt_core.core.errors import CheckpointError


def test_a_directory_and_its_weights_file_resolve_to_the_directory(tmp_path, save):
    path = save(tmp_path / "c")
    assert resolve(path) == path
    assert resolve(path / "lit_model.pth") == path
    assert resolve(str(path)) == path


def test_a_run_resolves_to_final_then_last_then_the_newest_step(tmp_path, save, caplog):
    run = tmp_path / "runs" / "one"
    checkpoints = run / "checkpoints"
    first, second = save(checkpoints / step_name(1)), save(checkpoints / step_name(2))
    assert resolve(run) == second
    link(first, "last")
    assert resolve(run) == checkpoints / "last"
    assert resolve(checkpoints) == checkpoints / "last"
    (first / "lit_model.pth").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert resolve(run) == second
    assert "last" in caplog.text
    final = save(run / "final")
    assert resolve(run) == final


def test_similar_names_are_suggested_for_a_wrong_name(tmp_path, save):
    save(tmp_path / "runs" / "baseline" / "final")
    with pytest.raises(CheckpointError) as caught:
        resolve(tmp_path / "runs" / "basline" / "final")
    assert "does not exist" in caught.value.given and "contains baseline" in caught.value.given
    assert caught.value.fix == f"did you mean {tmp_path / 'runs' / 'baseline'}?"
    with pytest.raises(CheckpointError, match="did you mean"):
        resolve(tmp_path / "runs" / "baseline" / "finale")


def test_a_folder_without_a_checkpoint_is_an_error_that_lists_it(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(CheckpointError, match=r"holds no checkpoint; .* contains config\.yaml"):
        resolve(tmp_path)
    with pytest.raises(CheckpointError, match="it is a file"):
        resolve(tmp_path / "config.yaml")
