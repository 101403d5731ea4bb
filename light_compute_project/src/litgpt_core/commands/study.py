"""Search settings: Optuna proposes values, each trial is a training in its own process, poor trials are pruned.

lcp search +experiment=smoke --trials 20 'optim.lr=tag(log,interval(1e-3,1e-1))'

ranges: interval(0,0.3)  tag(log,interval(1e-4,1e-2))  int(interval(2,8))  range(2,9,2)  choice(a,b)  a,b
Everything else is as for train. The study is runs/NAME/: study.db, study.json, study.png, one run folder per trial.
The same command continues it; a larger --trials extends it.
"""

from __future__ import annotations

from collections.abc import Sequence

from litgpt_core.core.command_line import CommandParser, command_for_record


def main(arguments: Sequence[str]) -> int:
    """Parse, search."""
    parser = CommandParser("search", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings and ranges")
    parser.add_argument("--trials", type=int, help="of the whole study, over all commands")
    parser.add_argument("--name", help="of the study's folder; default: the run's name and -study")
    parser.add_argument("--metric", choices=["val_loss", "val_bpb"], default="val_loss", help="metric to minimise")
    parser.add_argument("--sampler", choices=["tpe", "random", "grid"], default="tpe", help="search algorithm")
    parser.add_argument("--pruner", choices=["median", "hyperband", "none"], default="median", help="pruner")
    parser.add_argument("--startup", type=int, default=5, help="finished trials before tpe and median start")
    parser.add_argument("--prune_from", type=int, default=0, metavar="STEP", help="median prunes from this step on")
    parser.add_argument("--timeout", help="of this command, such as 90m or 8h; what runs is saved and continued later")
    given = parser.parse_intermixed_args(arguments)
    from litgpt_core.core.durations import seconds_of
    from litgpt_core.search.study import StudyRequest, run_study
    from litgpt_core.search.study_store import SearchSettings

    return run_study(
        StudyRequest(
            overrides=given.overrides,
            search=SearchSettings(
                metric=given.metric,
                sampler=given.sampler,
                pruner=given.pruner,
                startup=given.startup,
                prune_from=given.prune_from,
            ),
            trials=given.trials,
            name=given.name,
            timeout_s=None if given.timeout is None else seconds_of(given.timeout),
            command=command_for_record("search", arguments),
        )
    )
