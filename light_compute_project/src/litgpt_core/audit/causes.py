"""What differs between two recorded environments, the most likely cause of different numbers first; not a proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from litgpt_core.config.diff import differences, is_place
from litgpt_core.core.text import count

Facts = Mapping[str, Any]

COMPUTING_PACKAGES = ("torch", "numpy", "triton", "lightning", "tokenizers", "sentencepiece", "hydra-core", "omegaconf")
"""Packages that take part in a step, or in what it is fed with; CUDA's libraries (`nvidia-*`) as well."""

NOT_IN_A_STEP = (
    "planning/",
    "audit/",
    "search/",
    "runs/",
    "doctor/",
    "serving/",
    "generation/",
    "export/",
    "deploy/",
    "upstream/",
    "core/console",
)
"""Parts of litgpt_core that training does not read; generation only writes samples afterwards."""

OURS = "light-compute-project"
_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One recorded fact that is not the same on both sides."""

    what: str
    one: str
    other: str
    why: str
    """How it can change a number."""


def likely_causes(one: Facts, other: Facts) -> list[Cause]:
    """Differences between two `environment.json`, the most likely first; facts that a side lacks are not compared."""
    return [
        *_plain(one, other, _DATA),
        *code_causes(one, other, in_a_step=True),
        *_plain(one, other, _DECISIONS),
        *_packages(one, other),
        *_plain(one, other, _BUILD),
        *_plain(one, other, _MACHINE),
        *_table(one, other, "determinism", "torch's choice between algorithms"),
        *_table(one, other, "variables", "read by torch and its libraries when they start", absent="not set"),
        *_plain(one, other, _SURROUNDINGS),
        *code_causes(one, other, in_a_step=False),
    ]


WITHOUT_EFFECT = frozenset(
    f"trainer.{key}"
    for key in (
        *(
            "save_interval",
            "save_every",
            "keep_checkpoints",
            "restore_best",
            "stop_after",
            "sample_prompts",
            "sample_tokens",
        ),
        *(
            "max_time",
            "max_session_time",
            "max_sitting_time",
            "max_session_time",
            "max_cost",
            "cost_per_hour",
            "hang_timeout",
            "collective_timeout",
        ),
    )
)
"""Settings that no number of a row depends on, besides the sections `run` and `logger`."""


def setting_causes(one: dict[str, Any], other: dict[str, Any]) -> list[Cause]:
    """Settings that differ between two configs and that a row can depend on."""
    found = []
    for key, line in differences(one, other):
        if not is_place(key) and key not in WITHOUT_EFFECT:
            before, _, after = line.removeprefix(f"{key}: ").partition(" -> ")
            found.append(Cause(what=key, one=before, other=after, why="another setting"))
    return found


_DATA = (
    ("data.corpus_sha256", "corpus", "other text, other numbers"),
    ("data.split_sha256", "split of the corpus", "other text on either side of the split"),
    ("tokenizer.fingerprint", "tokenizer", "other token ids for the same text"),
    ("data_fingerprint", "prepared data", "other tokens, or another order of documents"),
    ("init_from.weights_sha256", "weights of init_from", "the run starts somewhere else"),
    ("base_sha256", "base weights of the adapters", "the run starts somewhere else"),
)
_DECISIONS = (
    ("device", "device", "another processor adds in another order"),
    ("precision", "precision", "other rounding"),
    ("decisions.compile", "torch.compile", "the compiler fuses operations, which rounds elsewhere"),
    ("decisions.cpu_kernels", "training kernels", "they add in another order than PyTorch"),
    ("decisions.flat", "optimizer in one buffer", "sums over the buffer are taken in another order"),
    ("decisions.micro_batch", "micro-batch", "gradients are summed in another order"),
    ("decisions.accumulate", "gradient accumulation", "gradients are summed in another order"),
    ("processes.world_size", "processes", "gradients are summed in another order"),
    ("processes.strategy", "strategy", "gradients are summed in another order"),
    ("threads.torch", "torch threads", "a sum is split into other parts"),
    ("threads.omp", "OpenMP threads", "a sum is split into other parts"),
    ("threads.mkl", "MKL threads", "a sum is split into other parts"),
)
_BUILD = (
    ("torch_build.version", "torch", "other kernels"),
    ("torch_build.commit", "torch's commit", "other kernels"),
    ("torch_build.config_sha256", "torch's build options", "other compiler options or libraries"),
    ("torch_build.mkl", "MKL", "other matrix kernels"),
    ("torch_build.onednn", "oneDNN", "other matrix kernels"),
    ("torch_build.cudnn", "cuDNN", "other GPU kernels"),
)
_MACHINE = (
    ("cpu", "processor", "libraries choose kernels by the processor's model"),
    ("processor.vendor", "processor vendor", "libraries choose kernels by the processor's model"),
    ("processor.family", "processor family", "libraries choose kernels by the processor's model"),
    ("processor.model", "processor model", "libraries choose kernels by the processor's model"),
    ("processor.flags_sha256", "instruction sets", "libraries choose kernels by the instructions at hand"),
    ("cpu_capability", "torch's vector width", "a sum is split into other parts"),
    ("gpus", "GPUs", "other GPU kernels"),
    ("driver", "NVIDIA driver", "other machine code for the same kernels"),
)
_SURROUNDINGS = (
    ("python.version", "Python", "other standard library"),
    ("platform", "system", "other mathematical library of the system"),
)


def _plain(one: Facts, other: Facts, wanted: tuple[tuple[str, str, str], ...]) -> Iterator[Cause]:
    for key, what, why in wanted:
        a, b = look_up(one, key), look_up(other, key)
        if a is not None and b is not None and a != b:
            yield Cause(what=what, one=_short(a), other=_short(b), why=why)


def _table(one: Facts, other: Facts, name: str, why: str, *, absent: str | None = None) -> Iterator[Cause]:
    a, b = one.get(name), other.get(name)
    if not isinstance(a, dict) or not isinstance(b, dict):
        return
    for key in sorted({*a, *b}):
        left, right = a.get(key, absent), b.get(key, absent)
        if left != right and left is not None and right is not None:
            yield Cause(what=key, one=_short(left), other=_short(right), why=why)


def code_causes(one: Facts, other: Facts, *, in_a_step: bool) -> Iterator[Cause]:
    """Source files that take part in a step, or the others; where a side has no list of them, the commits."""
    a, b = look_up(one, "code.package_files"), look_up(other, "code.package_files")
    commits = [str(look_up(facts, "git.commit") or "unknown")[:12] for facts in (one, other)]
    if a and b:
        changed = [name for name in sorted({*a, *b}) if a.get(name) != b.get(name)]
        changed = [name for name in changed if name.startswith(NOT_IN_A_STEP) != in_a_step]
        if changed:
            more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
            many = count(len(changed), "source file")
            part = "differ" if in_a_step else "beside training differ"
            why = f"{many} {part}: {', '.join(changed[:_SHOWN])}{more}"
            what = "code" if in_a_step else "other code"
            yield Cause(what=what, one=commits[0], other=commits[1], why=why)
    elif in_a_step and commits[0] != commits[1]:
        yield Cause(what="code", one=commits[0], other=commits[1], why="another commit")


def _packages(one: Facts, other: Facts) -> Iterator[Cause]:
    """Those that compute by name, all others in one line."""
    a, b = one.get("packages"), other.get("packages")
    if not a or not b:  # runs of older code
        a, b = ({name: {"version": v} for name, v in (facts.get("versions") or {}).items()} for facts in (one, other))
        a.pop("python", None)
        b.pop("python", None)
    changed = [name for name in sorted({*a, *b} - {OURS}) if a.get(name) != b.get(name)]
    computing = [name for name in changed if name in COMPUTING_PACKAGES or name.startswith("nvidia-")]
    for name in sorted(computing, key=lambda name: (name not in COMPUTING_PACKAGES, name)):
        left, right = (_version(table.get(name)) for table in (a, b))
        if left == right:
            yield Cause(what=name, one=left, other=right, why="the same version, but other files were installed")
        else:
            yield Cause(what=name, one=left, other=right, why="another version computes")
    rest = [name for name in changed if name not in computing]
    if rest:
        shown = [f"{name} {_version(a.get(name))} -> {_version(b.get(name))}" for name in rest[:_SHOWN]]
        more = f", and {len(rest) - _SHOWN} more" if len(rest) > _SHOWN else ""
        yield Cause(
            what="other packages",
            one=f"{len(a)} installed",
            other=f"{len(b)} installed",
            why=f"{len(rest)} differ, none of which computes a step: {', '.join(shown)}{more}",
        )


def look_up(facts: Facts, dotted: str) -> Any:
    """`look_up(facts, "a.b")` is `facts["a"]["b"]`, or None where a part is missing."""
    found: Any = facts
    for part in dotted.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _version(entry: Facts | None) -> str:
    return "absent" if entry is None else str(entry.get("version"))


def _short(value: Any) -> str:
    text = str(value)
    is_hash = isinstance(value, str) and len(value) >= 40 and all(c in "0123456789abcdef" for c in value)
    return text[:12] if is_hash else text
