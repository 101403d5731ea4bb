"""What a rented machine runs: pure functions from numbers and words to shell text.

Two texts. `arming` are the very first lines that run on the machine: a background process that ends the machine at the
deadline, whatever happens to set-up, training, network or laptop. `node_script` is `node.sh` of the parcel: set-up,
training, waiting for the results to be fetched; a failed set-up ends the machine, too.

What the machine says of itself is one line in the file `state`: `setup`, `training`, `ended CODE`, `failed CODE`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from litgpt_core.core.errors import ConfigError

FAILED_LINGER_S = 120.0
"""How long a machine whose set-up failed waits for its log to be fetched, at least."""

_DESTROY_RENTED = """\
lcp_destroy() {
    for lcp_name in RUNPOD_POD_ID RUNPOD_API_KEY; do    # an SSH session lacks what the pod was started with
        if [ -z "${!lcp_name:-}" ] && [ -r /proc/1/environ ]; then
            export "$lcp_name=$(tr '\\0' '\\n' < /proc/1/environ | sed -n "s/^$lcp_name=//p")"
        fi
    done
    while :; do
        if [ -n "${RUNPOD_POD_ID:-}" ]; then
            runpodctl remove pod "$RUNPOD_POD_ID" ||
                curl -fsS -X DELETE -H "Authorization: Bearer ${RUNPOD_API_KEY:-}" \\
                    "https://rest.runpod.io/v1/pods/$RUNPOD_POD_ID"
        elif [ -n "${SLURM_JOB_ID:-}" ]; then
            trap '' TERM    # of the signal that this script gets, too
            scancel --signal=TERM --full "$SLURM_JOB_ID"
            for lcp_second in {1..30}; do
                sleep 1
                [ -d "${LCP_HERE:-/}" ] || exit 0
            done
            scancel "$SLURM_JOB_ID"
        else
            sudo -n shutdown -h now || shutdown -h now
        fi
        sleep 30
    done
}
"""
"""A pod of RunPod removes itself, a job of SLURM cancels itself, a virtual machine switches itself off. SkyPilot's
autodown, on the machine too, then ends what was switched off.

SLURM: first SIGTERM for all processes of a job that goes on, so that SkyPilot's can start the steps that remove its
folders, this script's last. After a plain `scancel` it cannot, and sometimes it was ended before it had removed any.
"""

_DESTROY_LOCAL = """\
lcp_destroy() {
    : > "$LCP_HERE/destroyed"
    kill -KILL -"$(cat "$LCP_HERE/group")"
}
"""
"""The process group of the rehearsal, whose number whoever started it has written down; never anything else."""

_SLURM_LIMIT = """\
lcp_limit() {    # whether SLURM ends this machine at the deadline by itself
    [ -n "${SLURM_JOB_ID:-}" ] || return 1
    lcp_job=$(scontrol show job "$SLURM_JOB_ID" --oneliner) || return 1
    lcp_begin=$(date -d "$(sed -n 's/.* StartTime=\\([^ ]*\\).*/\\1/p' <<< "$lcp_job")" +%s) || return 1
    lcp_end=$(date -d "$(sed -n 's/.* EndTime=\\([^ ]*\\).*/\\1/p' <<< "$lcp_job")" +%s) || lcp_end=
    lcp_wanted=$(($(date +%s) + lcp_left))
    if [ -n "$lcp_end" ] && [ "$lcp_end" -le "$lcp_wanted" ]; then return 0; fi
    scontrol update "JobId=$SLURM_JOB_ID" "TimeLimit=$(((lcp_wanted - lcp_begin + 119) / 60))"
}
"""
"""The owner of a job may shorten its limit of time, in minutes since it began, and never lengthen it. The limit is a
minute or two after the deadline: SLURM's own end would interrupt what removes the job's folders then.
"""

_LOCAL_LIMIT = """\
lcp_limit() { return 1; }
"""

_ARMING = """\
lcp_left=$(({deadline} - $(date +%s)))
if [ "$lcp_left" -gt {longest} ]; then lcp_left={longest}; fi
if [ "$lcp_left" -lt 1 ]; then lcp_left=1; fi
if lcp_limit >/dev/null 2>&1; then lcp_ignored=HUP; else lcp_ignored='HUP TERM'; fi
( trap '' $lcp_ignored; sleep "$lcp_left" && lcp_destroy ) </dev/null >/dev/null 2>&1 &
"""
"""SIGTERM alone must not switch the self-destruct off, unless SLURM knows the deadline, too. There it has to end with
the job: SLURM waits for every process after SIGTERM, and ends with SIGKILL what SkyPilot has not removed by then.
"""

_HELPERS = """\
lcp_say() { printf '%s\\n' "$*" > "$LCP_HERE/.state" && mv "$LCP_HERE/.state" "$LCP_HERE/state"; }
lcp_child=
trap 'if [ -n "$lcp_child" ]; then kill -TERM "$lcp_child"; fi' TERM INT
lcp_wait() {
    wait "$lcp_child"; lcp_code=$?
    while kill -0 "$lcp_child" 2>/dev/null; do wait "$lcp_child"; lcp_code=$?; done
    lcp_child=
}
lcp_linger() {    # seconds; if SIGTERM comes first, whoever sent it ends this machine
    trap 'kill "$lcp_sleep" 2>/dev/null; exit 143' TERM INT
    sleep "$1" &
    lcp_sleep=$!
    wait "$lcp_sleep" || exit 143
}
"""
"""What is said of itself, a child that is waited for although SIGTERM is passed on to it, and waiting to be fetched."""


def arming(*, deadline: float, now: float, local: bool = False) -> str:
    """Lines that make the machine end itself.

    Args:
        deadline: Seconds since the epoch.
        now: The same clock, when the machine is requested: a machine whose clock is slow ends itself so long after the
            lines run at most.
        local: For a rehearsal on this machine, which must not be switched off.
    """
    longest = max(1, int(deadline - now))
    functions = _DESTROY_LOCAL + _LOCAL_LIMIT if local else _DESTROY_RENTED + _SLURM_LIMIT
    return functions + _ARMING.format(deadline=int(deadline), longest=longest)


@dataclass(frozen=True, kw_only=True)
class NodeWork:
    """What `node.sh` does.

    Attributes:
        setup: Shell lines, run in `code/`.
        command: The training, run in `code/`, without its limit of time; `$LCP_HERE` stands for the parcel's folder.
        stop_at: Seconds since the epoch, when the training is to have saved and ended.
        now: The same clock, when the machine is requested.
        linger_s: How long to wait for the results to be fetched.
        failed_linger_s: The same after a failed set-up: longer than the time between two looks, or nobody sees why.
        run_folder: Of the run, below the parcel.
    """

    setup: Sequence[str]
    command: Sequence[str]
    stop_at: float
    now: float
    linger_s: float
    run_folder: str
    failed_linger_s: float = FAILED_LINGER_S


def node_script(work: NodeWork, *, arming_lines: str) -> str:
    """The text of `node.sh`.

    Args:
        work: Set-up, training, times.
        arming_lines: Of `arming`.

    Raises:
        ConfigError: A word of the training's command has a line break.
    """
    if any("\n" in word or "\0" in word for word in work.command):
        raise ConfigError("a setting of the training has a line break", needed="settings of one line each")
    longest = max(0, int(work.stop_at - work.now))
    setup = "\n".join(f"    {line}" for line in work.setup) or "    :"
    command = " ".join(_word(word) for word in work.command)
    return f"""\
#!/bin/bash
# Written by lcp deploy. The first lines make this machine end itself at its deadline.
LCP_HERE=$(cd "$(dirname "$0")" && pwd)
export LCP_HERE
{arming_lines}
{_HELPERS}
cd "$LCP_HERE/code" || {{ lcp_say 'failed 1'; lcp_linger {int(work.failed_linger_s)}; lcp_destroy; }}
lcp_say setup
(
    set -e
{setup}
) > "$LCP_HERE/setup.log" 2>&1 &
lcp_child=$!
lcp_wait
if [ "$lcp_code" -ne 0 ]; then
    lcp_say "failed $lcp_code"
    lcp_linger {int(work.failed_linger_s)}    # its log is fetched; then this machine ends: it must not cost money
    lcp_destroy
    exit 1
fi

lcp_left=$(({int(work.stop_at)} - $(date +%s)))
if [ "$lcp_left" -gt {longest} ]; then lcp_left={longest}; fi
if [ "$lcp_left" -gt 0 ]; then
    lcp_say training
    {command} "trainer.max_session_time=${{lcp_left}}s" > "$LCP_HERE/train.log" 2>&1 &
    lcp_child=$!
    lcp_wait
else
    lcp_code=0
fi
lcp_say "ended $lcp_code"
lcp_linger {int(work.linger_s)}    # the results are fetched and this machine is ended; if nobody comes, it ends itself
lcp_destroy
"""


def _word(word: str) -> str:
    """Quoted, but for `$LCP_HERE` at its beginning or after `=`."""
    before, here, after = word.partition("$LCP_HERE")
    if not here:
        return shlex.quote(word)
    return (shlex.quote(before) if before else "") + '"$LCP_HERE"' + (shlex.quote(after) if after else "")
