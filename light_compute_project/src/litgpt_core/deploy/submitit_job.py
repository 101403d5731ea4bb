"""What a submitit job does: `train.py` as a child process, which is told to save when the job must go.

submitit pickles a `TrainJob` and calls it in every task of the job. On the queue's warning it asks the task of rank 0
for a `checkpoint`, puts the job back into the queue, and calls the same object again there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import submitit

from litgpt_core.distributed.requeue import REQUEUE
from litgpt_core.distributed.world import PARENT, address_of

STOPPED = (130, 143)
"""Exit codes of a training that was told to stop, and saved."""
_UNTIL_ENDED_S = 120.0


class TrainingFailed(Exception):
    """The training's process ended badly; submitit reports the job as failed."""


class TrainJob:
    """One run, as a callable that submitit can pickle.

    Args:
        command: Of the training.
        folder: Where it is typed.
        tasks_are_ranks: Whether every task of the job is a process of the training.
    """

    def __init__(self, command: Sequence[str], *, folder: str, tasks_are_ranks: bool) -> None:
        self.command, self.folder, self.tasks_are_ranks = list(command), folder, tasks_are_ranks
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Train; 0, or `TrainingFailed`."""
        environment = {**os.environ, PARENT: str(os.getpid())}  # it ends with this process, however that ends
        environment.pop(REQUEUE, None)  # submitit asks the queue
        rank = 0
        if self.tasks_are_ranks:
            variables = rank_variables()
            environment, rank = environment | variables, int(variables["RANK"])
        self._child = subprocess.Popen(self.command, cwd=self.folder, env=environment)
        try:
            _wait(self._child)
        except KeyboardInterrupt:
            self._tell_child()
            raise
        code = self._child.wait()
        if code in STOPPED and rank != 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit would only note it
            time.sleep(_UNTIL_ENDED_S)  # rank 0's task puts the job back into the queue, which ends this one
        if code:
            raise TrainingFailed(f"train.py ended with exit code {code}")
        return 0

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called in a signal handler: have the training save, then hand over what to do after the requeue."""
        self._tell_child()
        return submitit.helpers.DelayedSubmission(self)

    def _tell_child(self) -> None:
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child.pid, signal.SIGTERM)
        _wait(self._child)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_child": None}


def _wait(child: subprocess.Popen[bytes]) -> None:
    """Until the child has ended, without reaping it: this may run in a signal handler in the midst of itself."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


def rank_variables() -> dict[str, str]:
    """This task's place among those of the job, in torchrun's words."""
    job = submitit.JobEnvironment()
    number = int("".join(c for c in job.raw_job_id if c.isdigit()) or 0)
    per_node = job.num_tasks // job.num_nodes
    return {
        "RANK": str(job.global_rank),
        "LOCAL_RANK": str(job.local_rank),
        "WORLD_SIZE": str(job.num_tasks),
        "LOCAL_WORLD_SIZE": str(per_node),
        "GROUP_RANK": str(job.node),
        "MASTER_ADDR": "127.0.0.1" if job.num_nodes == 1 else address_of(job.hostnames[0]),
        "MASTER_PORT": str(20_000 + number % 20_000),
    }
