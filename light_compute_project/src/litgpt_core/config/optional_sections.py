"""The sections of a config that are null unless chosen: adapters, quantization-aware training, distillation."""

from __future__ import annotations

from typing import Any

from litgpt_core.config.check import check_section
from litgpt_core.config.source import Source
from litgpt_core.model.optional_settings import DistillSettings, LoRASettings, QatSettings

OPTIONAL_SECTIONS: dict[str, type] = {"lora": LoRASettings, "qat": QatSettings, "distill": DistillSettings}
"""Section -> its settings; a config of an earlier version may lack a section."""


def check_optional(plain: dict[str, Any], source: Source, problems: list[str]) -> dict[str, Any]:
    """The settings of each section, None where it is null; problems are appended."""
    found: dict[str, Any] = {}
    for name, cls in OPTIONAL_SECTIONS.items():
        found[name] = None if plain.get(name) is None else check_section(plain, name, cls, source, problems)
    base = plain.get("init_from")
    if plain.get("lora") is not None and not base:
        problems.append(f"lora: there is nothing to adapt: type init_from=CHECKPOINT{source.where('lora')}")
    if plain.get("qat") is not None and not base:
        problems.append(f"qat: there are no weights to round: type init_from=CHECKPOINT{source.where('qat')}")
    if plain.get("lora") is not None and plain.get("qat") is not None:
        problems.append("lora with qat: adapters are added to weights that are not trained; type lora=null or qat=null")
    if found["distill"] is not None and not found["distill"].teacher:
        problems.append(f"distill.teacher is missing: type teacher=DIR{source.where('distill.teacher')}")
    return found


def teacher_of(plain: dict[str, Any]) -> str | None:
    """What `distill.teacher` names, if there is one."""
    section = plain.get("distill")
    given = section.get("teacher") if isinstance(section, dict) else None
    return str(given) if given else None
