"""Search settings: Optuna proposes values, train.py tries each in a process of its own, bad trials are pruned early.

python light_compute_project/scripts/study.py +experiment=smoke --trials 20 'optim.lr=tag(log,interval(1e-3,1e-1))'

ranges: interval(0,0.3)  tag(log,interval(1e-4,1e-2))  int(interval(2,8))  range(2,9,2)  choice(a,b)  a,b
Everything else is as for train.py. The study is runs/NAME/: study.db, study.json, study.png, one run folder per trial.
The same command continues it; a larger --trials extends it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from litgpt_core.core.console import run_script


def main() -> int:
    """Parse, search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings and ranges")
    parser.add_argument("--trials", type=int, help="trials of the whole study, however often the command is given")
    parser.add_argument("--name", help="of the study's folder; default: the run's name and -study")
    parser.add_argument("--metric", choices=["val_loss", "val_bpb"], default="val_loss", help="metric to minimise")
    parser.add_argument("--sampler", choices=["tpe", "random", "grid"], default="tpe", help="search algorithm")
    parser.add_argument(
        "--pruner", choices=["median", "hyperband", "none"], default="median", help="which trials are given up"
    )
    parser.add_argument("--startup", type=int, default=5, help="finished trials before tpe and median set in")
    parser.add_argument(
        "--prune_from", type=int, default=0, metavar="STEP", help="step before which median prunes nothing"
    )
    parser.add_argument("--timeout", help="of this command, such as 90m or 8h; what runs is saved and continued later")
    arguments = parser.parse_intermixed_args()
    from litgpt_core.core.durations import seconds_of
    from litgpt_core.search.study import StudyRequest, run_study
    from litgpt_core.search.study_store import SearchSettings

    return run_study(
        StudyRequest(
            overrides=arguments.overrides,
            search=SearchSettings(
                metric=arguments.metric,
                sampler=arguments.sampler,
                pruner=arguments.pruner,
                startup=arguments.startup,
                prune_from=arguments.prune_from,
            ),
            trials=arguments.trials,
            name=arguments.name,
            timeout_s=None if arguments.timeout is None else seconds_of(arguments.timeout),
            command=shlex.join(["python", *sys.argv]),
            script=Path(__file__).with_name("train.py"),
        )
    )


if __name__ == "__main__":
    run_script(main)
