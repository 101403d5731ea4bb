"""What `plan` shows and `up` does: offers, candidates, what travels, the request, and the text of the task."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.config.compose import TrainConfig, load
from litgpt_core.core.errors import ConfigError
from litgpt_core.deploy.rental.candidates import HOURS_OF_A_MONTH, Candidate, Conditions, candidates, choose
from litgpt_core.deploy.rental.ledger import rentals_home
from litgpt_core.deploy.rental.node_script import arming
from litgpt_core.deploy.rental.parcel import Contents, prepared_folder, survey
from litgpt_core.deploy.rental.prices import OFFERS, read_offers, select
from litgpt_core.deploy.rental.provider import Launch
from litgpt_core.deploy.rental.request import ENGINES, NODE_SHARE, Place, RentalRequest, new_id
from litgpt_core.deploy.rental.session import CEILING
from litgpt_core.deploy.rental.sky_task import render
from litgpt_core.planning.gpus import find_gpu

REHEARSAL_HOURLY = 1.0
"""Dollars an hour that a rehearsal on this computer pretends to cost."""


@dataclass(frozen=True, kw_only=True)
class RentalPlan:
    """Everything that is known before money is spent."""

    found: tuple[Candidate, ...]
    """All, those that may be taken first, cheapest first; empty for a rehearsal."""
    request: RentalRequest
    contents: Contents
    task: str
    """The SkyPilot task of the first place; empty for other engines."""
    sources: tuple[str, ...] = ()
    """Where the prices are from, with dates."""


def make_plan(options: argparse.Namespace, *, poll_s: float, pull_every_s: float) -> RentalPlan:
    """Plan a rental; nothing is asked of anybody.

    Args:
        options: As `command.parse` returns them.
        poll_s: Seconds between two looks.
        pull_every_s: Seconds between two copies of checkpoints.

    Raises:
        LightComputeError: With everything that is wrong.
    """
    if options.engine not in ENGINES:
        raise ConfigError(f"--engine={options.engine}", needed=f"one of {', '.join(ENGINES)}")
    if options.spot and options.no_spot:
        raise ConfigError("--spot and --no_spot exclude each other")
    config = load(options.words)
    if config.run.folder.is_dir() and (config.run.folder / "config.yaml").is_file() and not config.run.resume:
        raise ConfigError(
            f"the run folder {config.run.folder} is in use",
            needed="a new name, or run.resume=auto to continue it on a rented machine",
            fix=f"run.name={config.run.name}-2",
        )
    conditions = Conditions(
        budget=options.budget,
        max_hourly_cost=options.max_hourly_cost,
        disk_gb=options.disk,
        setup_minutes=options.setup_minutes,
        mfu=options.mfu,
    )
    found = [] if options.engine == "local" else _found(options, config, conditions)
    places = _places(found) if found else (_rehearsal(),)
    contents = survey(config, dirty=options.dirty or options.action == "plan")
    name, rental_id = config.run.name, new_id()
    request = RentalRequest(
        name=name,
        rental_id=rental_id,
        engine=options.engine,
        places=places,
        overrides=tuple(options.words),
        run_dir=str(Path(config.run.dir).expanduser().resolve()),
        parcel=str(rentals_home() / f"{name}-{rental_id}" / "parcel"),
        budget=options.budget,
        max_hourly_cost=options.max_hourly_cost,
        disk_gb=options.disk,
        secret_names=tuple(dict.fromkeys(options.secret)),
        setup=tuple(options.setup),
        image=options.image,
        ssh_key=options.ssh_key,
        poll_s=poll_s,
        pull_every_s=pull_every_s,
    )
    return RentalPlan(
        found=tuple(found),
        request=request,
        contents=contents,
        task=_task(request) if options.engine == "sky" else "",
        sources=tuple(dict.fromkeys(f"{each.offer.as_of}: {each.offer.source}" for each in found if each.offer.source)),
    )


def _found(options: argparse.Namespace, config: TrainConfig, conditions: Conditions) -> list[Candidate]:
    kinds = [part for part in (options.gpu or "").split(",") if part]
    names, counts = [], {}
    for part in kinds:
        name, colon, number = part.rpartition(":") if ":" in part else (part, "", "")
        gpu = find_gpu(name).name
        names.append(gpu)
        if colon:
            if not number.isdecimal() or int(number) < 1:
                raise ConfigError(f"--gpu {part}", needed="KIND:NUMBER", fix=f"--gpu {name}:1")
            counts[gpu] = int(number)
    offers = read_offers(options.prices) if options.prices else OFFERS
    clouds = _words(options.cloud) or (["runpod"] if options.engine == "runpod" else [])
    if options.engine == "runpod" and clouds != ["runpod"]:
        raise ConfigError(f"--engine runpod with --cloud {options.cloud}", fix="--engine sky rents at every cloud")
    spot = True if options.spot else False if options.no_spot else None
    chosen = select(offers, gpus=names, providers=clouds, regions=_words(options.region), spot=spot)
    found = candidates(config, chosen, conditions=conditions, counts=counts, tokens=_tokens(config))
    choose(found)
    return found


def _tokens(config: TrainConfig) -> float | None:
    """Of a run whose length is given in epochs, where the prepared data say how many that are."""
    if config.trainer.stop.epochs is None:
        return None
    known = prepared_folder(config)
    if known is None:
        raise ConfigError(
            f"trainer.epochs={config.trainer.stop.epochs:g}: the steps of that are known once the data are prepared",
            fix="prepare them (lcp data), or say trainer.max_steps and trainer.epochs=null",
        )
    from litgpt_core.data.prepare import open_prepared

    return config.trainer.stop.epochs * open_prepared(known[0]).epoch_tokens


def _places(found: Sequence[Candidate]) -> tuple[Place, ...]:
    """The kinds of machines of a request: those that may be taken and that compute the same as the first."""
    usable = choose(found)
    first = _trajectory(usable[0])
    return tuple(
        Place(
            provider=each.offer.provider,
            gpu=each.offer.gpu,
            count=each.count,
            accelerator=each.offer.sky_accelerator,
            hourly=round(each.hourly, 4),
            storage_hourly=each.conditions.disk_gb * each.offer.storage / HOURS_OF_A_MONTH,
            regions=each.offer.regions,
            spot=each.offer.spot,
            overrides=each.overrides,
        )
        for each in usable
        if _trajectory(each) == first
    )


def _trajectory(candidate: Candidate) -> list[str]:
    """What of a candidate's settings a continued run may not change."""
    return [text for text in candidate.overrides if text.startswith("trainer.loss_chunk_size=")]


def _rehearsal() -> Place:
    return Place(provider="local", gpu="", count=1, accelerator="", hourly=REHEARSAL_HOURLY)


def _task(request: RentalRequest) -> str:
    """The task of the first place, as it would be at second 0."""
    place = request.places[0]
    ceiling = min(request.max_hourly_cost, CEILING * place.hourly)
    deadline = NODE_SHARE * request.budget / ceiling * 3600
    return render(
        Launch(
            request=request,
            name=request.machine_name(1),
            place=place,
            ceiling=ceiling - place.storage_hourly,
            parcel=Path(request.parcel),
            arming=arming(deadline=deadline, now=0.0),
            deadline=deadline,
            secrets=dict.fromkeys(request.secret_names, ""),
        )
    )


def _words(text: str | None) -> list[str]:
    return [word for word in (text or "").split(",") if word]
