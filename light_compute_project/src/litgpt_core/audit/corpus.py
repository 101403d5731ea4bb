"""The data of a run against what its settings prepare now."""

from __future__ import annotations

from typing import Any

from litgpt_core.audit.causes import look_up
from litgpt_core.audit.recorded import RecordedRun
from litgpt_core.config.compose import TrainConfig
from litgpt_core.core.errors import DataError


def check_same_data(run: RecordedRun, config: TrainConfig) -> str:
    """The fingerprint, if the settings still prepare the tokens that the run was trained on.

    Args:
        run: What was.
        config: Its settings, with paths that lead to the corpus from here.

    Raises:
        DataError: They prepare other tokens; says whether the corpus, its split or the tokenizer is another one.
        LightComputeError: They prepare none: the corpus is missing, for example.
    """
    from litgpt_core.planning.run_data import prepare_for
    from litgpt_core.training.pretrained import find_pretrained
    from litgpt_core.training.record import data_facts, tokenizer_facts

    then = run.environment.get("data_fingerprint")
    now = prepare_for(find_pretrained(config))
    if then is None:
        raise DataError(
            f"{run.path / 'environment.json'} records no data fingerprint: what the run was trained on is unknown",
            needed="data_fingerprint, as lcp train writes it",
        )
    if now.fingerprint != then:
        facts = {"data": data_facts(now.meta), "tokenizer": tokenizer_facts(now.meta)}
        raise DataError(
            f"the data of {run.path} is not what its settings prepare now: fingerprint {then[:12]} recorded, "
            f"{now.fingerprint[:12]} now{_what_differs(run.environment, facts)}",
            needed="the same corpus and tokenizer: other tokens give other losses",
            fix="restore the original text; a chat log that has grown since cannot be restored",
        )
    return now.fingerprint


def _what_differs(then: dict[str, Any], now: dict[str, Any]) -> str:
    named = (
        ("data.corpus_sha256", "the corpus"),
        ("data.split_sha256", "the split"),
        ("tokenizer.fingerprint", "the tokenizer"),
    )
    found = []
    for key, name in named:
        a, b = look_up(then, key), look_up(now, key)
        if a is not None and b is not None and a != b:
            found.append(f"{name} differs ({a[:12]} then, {b[:12]} now)")
    return "; " + ", ".join(found) if found else ""
