"""A run, or every run of a sweep, as an sbatch script: a pure function from a checked request to text.

What the script does: SLURM starts one task per process of the training on every node; two minutes (`--signal_grace`)
before the job ends, every process gets SIGUSR1, saves and exits; the job is requeued and the run continues where it
stopped, because its command says `run.resume=auto`. Several runs become one job array with an element for each.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.core.errors import ConfigError
from litgpt_core.deploy.job_request import JobRequest, slurm_memory, slurm_time

_ADDRESS = """\
# Rank 0 waits on the first node, under its name where that can be looked up, else under the address SLURM itself uses.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
if ! getent hosts "$MASTER_ADDR" >/dev/null; then
    MASTER_ADDR=$(scontrol show node "$MASTER_ADDR" --oneliner | sed -n 's/.* NodeAddr=\\([^ ]*\\).*/\\1/p')
fi
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT
unset RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK    # of a shell that submitted from another launcher
"""

_ENDING = """\
# 138: SLURM's warning arrived before Python could handle it. Later the run saves and requeues the job itself.
job=$SLURM_JOB_ID
if [ -n "$SLURM_ARRAY_JOB_ID" ]; then job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
if [ "$code" -eq 138 ] && [ "$LIGHT_COMPUTE_REQUEUE" = 1 ]; then scontrol requeue "$job"; fi
exit "$code"
"""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What the script runs, and where.

    Args:
        name: Of the job: that of the run, or of the sweep.
        commands: The complete command of each run; more than one become a job array.
        folder: Current folder of the command; an absolute path that every node sees.
        logs: Folder of the job's output; absolute, must exist when the job starts.
        cores: Of each task.
    """

    name: str
    commands: Sequence[Sequence[str]]
    folder: Path
    logs: Path
    cores: int

    @property
    def output(self) -> str:
        """File name of a job's output: `%j`, or `%A_%a` in an array, stand for its number."""
        return f"{self.name}-{'%j' if len(self.commands) == 1 else '%A_%a'}.out"


def render(job: TrainingJob, request: JobRequest) -> str:
    """The script's text. Every value is quoted; nothing is looked up.

    Raises:
        ConfigError: A folder or name holds a line break or another control character: quoting keeps it, and what
            follows a line break would be a line of the script.
    """
    seconds, last = request.seconds, len(job.commands) - 1
    at_most = "" if request.array_parallelism is None else f"%{request.array_parallelism}"
    options: dict[str, str | int | None] = {
        "job-name": job.name,
        "chdir": str(job.folder),
        "output": str(job.logs).replace("%", "%%") + f"/{job.output}",
        "open-mode": "append",
        "nodes": request.nodes,
        "ntasks-per-node": request.tasks_per_node,
        "cpus-per-task": job.cores,
        "gpus-per-node": request.gpus_per_node,
        "mem": None if request.mem is None else slurm_memory(request.mem),
        "time": None if seconds is None else slurm_time(seconds),
        "partition": request.partition,
        "account": request.account,
        "qos": request.qos,
        "constraint": request.constraint,
        "array": f"0-{last}{at_most}" if last else None,
        "signal": f"USR1@{request.grace_s}",  # to the processes of srun; `B:` would reach this shell alone
    }
    for key, value in options.items():
        if any(ord(character) < 32 or ord(character) in range(127, 160) for character in str(value)):
            raise ConfigError(
                f"--{key} would be {str(value)!r}, with a control character",
                needed="names and folders without line breaks and other control characters",
                fix="rename the folder, or run the command in another one",
            )
    lines = [f"#SBATCH --{key}={shlex.quote(str(value))}" for key, value in options.items() if value is not None]
    lines.append("#SBATCH --requeue")
    for option in request.sbatch:
        key, equals, value = option.partition("=")
        lines.append(f"#SBATCH {key}{equals}{shlex.quote(value) if equals else ''}")
    environment = [
        "export LIGHT_COMPUTE_REQUEUE=1    # the run requeues this job when it is stopped",
        f'if [ "${{SLURM_RESTART_COUNT:-0}}" -ge {request.max_requeues} ]; then LIGHT_COMPUTE_REQUEUE=0; fi',
        f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{job.cores}}} PYTHONUNBUFFERED=1",
    ]
    command = shlex.join(job.commands[0])
    srun = ["code=0"]
    if last:
        elements = [f"    {number}) command=({shlex.join(one)}) ;;" for number, one in enumerate(job.commands)]
        srun += ["# One element of the array for each run of the sweep", 'case "$SLURM_ARRAY_TASK_ID" in']
        srun += [*elements, "esac"]
        command = '"${command[@]}"'
    # srun does not inherit the number of cores from sbatch in every version
    srun += [f"srun --cpus-per-task={job.cores} --kill-on-bad-exit=1 \\", f"    {command} || code=$?"]
    blocks = ["#!/bin/bash\n" + "\n".join(lines), *(["\n".join(request.setup)] if request.setup else [])]
    blocks += ["\n".join(environment), _ADDRESS.rstrip(), "\n".join(srun), _ENDING]
    return "\n\n".join(blocks)
