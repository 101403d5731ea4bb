"""Checkpoint directories in LitGPT's layout: written atomically, verified, loaded, and pruned.

    from litgpt_core.checkpoint import load_model, newest_valid, save_directory

Names are imported lazily, so that searching for checkpoints does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from litgpt_core.core.lazy import lazy_names

if TYPE_CHECKING:
    from litgpt_core.checkpoint.choice import ModelChoice as ModelChoice
    from litgpt_core.checkpoint.choice import best_first as best_first
    from litgpt_core.checkpoint.choice import choose as choose
    from litgpt_core.checkpoint.choice import describe as describe
    from litgpt_core.checkpoint.choice import find_model as find_model
    from litgpt_core.checkpoint.choice import locate as locate
    from litgpt_core.checkpoint.directory import save_directory as save_directory
    from litgpt_core.checkpoint.discovery import Discovery as Discovery
    from litgpt_core.checkpoint.discovery import FoundModel as FoundModel
    from litgpt_core.checkpoint.discovery import discover as discover
    from litgpt_core.checkpoint.load import is_tied as is_tied
    from litgpt_core.checkpoint.load import load_extra as load_extra
    from litgpt_core.checkpoint.load import load_into as load_into
    from litgpt_core.checkpoint.load import load_model as load_model
    from litgpt_core.checkpoint.load import load_weights as load_weights
    from litgpt_core.checkpoint.retention import link as link
    from litgpt_core.checkpoint.retention import newest_valid as newest_valid
    from litgpt_core.checkpoint.retention import prune as prune
    from litgpt_core.checkpoint.retention import step_name as step_name
    from litgpt_core.checkpoint.retention import step_of as step_of
    from litgpt_core.checkpoint.search import resolve as resolve
    from litgpt_core.checkpoint.verification import verify as verify

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "choice": "ModelChoice best_first choose describe find_model locate",
        "directory": "save_directory",
        "discovery": "Discovery FoundModel discover",
        "load": "is_tied load_extra load_into load_model load_weights",
        "retention": "link newest_valid prune step_name step_of",
        "search": "resolve",
        "verification": "verify",
    },
)
