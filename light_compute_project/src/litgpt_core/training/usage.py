"""What `lcp train --help` and `lcp train ... --cfg job` print; neither imports torch, and `--help` not Hydra either."""

from __future__ import annotations

from collections.abc import Sequence

from litgpt_core.config.source import group_names, option_names
from litgpt_core.core.errors import ConfigError

_HEAD = """\
Train a language model from a config.

usage: {program} [GROUP=OPTION ...] [SECTION.SETTING=VALUE ...]

examples:
  {program} +experiment=baseline                          the main recipe: real text, no download, minutes on a laptop
  {program} +experiment=baseline run.resume=auto          continue it where it stopped, exactly
  {program} +experiment=smoke                             seconds, to see that everything works
  {program} data=text data.path=my_texts tokenizer=bpe model=nano_cpu run.name=mine
  {program} model=registry model.name=Llama-3.2-1B ...    any name in LitGPT's registry
  {program} +experiment=finetune_chat init_from=runs/NAME  learn from chat_history.jsonl; lora=default trains adapters
  {program} +experiment=qat init_from=runs/NAME           int4 weights that are trained: runs/qat/compressed
  {program} +experiment=distill teacher=runs/NAME         a model of half the size learns from a larger one
  {program} from_litgpt=FILE.yaml data=text data.path=...  what a config of `litgpt pretrain` says, run here
  lcp slurm +experiment=baseline --gpus_per_node 4 --submit    as a job of a SLURM queue (docs/slurm.md)
  {program} -m +experiment=smoke optim.lr=1e-3,3e-3 seed=1,2   one run after the other; again: continue (docs/sweeps.md)

--config_dir FOLDER, else configs/ in the current folder, is searched before the files that come with the package

groups and their options:
"""

_TAIL = """
shorter forms, which are answered with the exact ones: {program} my.txt --epochs 10 --batch_size 64; max_steps=10
{program} ... --cfg job prints the composed config and trains nothing

settings that every run has:
  run.name=NAME  run.dir=FOLDER  run.resume=false|true|auto  seed=N  init_from=CHECKPOINT
  trainer.max_steps=N  trainer.global_batch_size=N  trainer.accelerator=auto  trainer.precision=auto
  trainer.compile=auto  trainer.threads=N  trainer.log_interval=N  trainer.eval_interval=N  trainer.save_interval=N
every setting with its meaning: light_compute_project/docs/configuration.md
"""


def usage(program: str) -> str:
    """Examples, groups with their options, and where to read on."""
    lines = [f"  {group:<11} {', '.join(option_names(group))}" for group in group_names()]
    return (_HEAD + "\n".join(lines) + "\n" + _TAIL).replace("{program}", program)


def shows_config(arguments: Sequence[str]) -> bool:
    """Whether `--cfg job`, Hydra's option, is among the arguments."""
    return any(word in ("--cfg", "-c") or word.startswith("--cfg=") for word in arguments)


def composed(arguments: Sequence[str]) -> str:
    """The composed and checked config as YAML, as `config.yaml` of the run would hold it.

    Raises:
        ConfigError: Something else than the job's config is requested, or the config is wrong.
    """
    from litgpt_core.config.compose import dump, load

    words = [word for text in arguments for word in (text.split("=", 1) if text.startswith("--cfg=") else [text])]
    place = next(number for number, word in enumerate(words) if word in ("--cfg", "-c"))
    what = words[place + 1] if len(words) > place + 1 and "=" not in words[place + 1] else "job"
    if what != "job":
        raise ConfigError(f"--cfg {what}: Hydra's own settings have no effect here", fix="--cfg job")
    rest = [*words[:place], *words[place + (2 if words[place + 1 : place + 2] == [what] else 1) :]]
    return dump(load([word for word in rest if word != "--resolve"], numbered=True).plain)
