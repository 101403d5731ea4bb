"""What an hour of a GPU costs where: a dated table of facts with their sources, or a YAML file of the user's.

Prices change by the week. They decide which machine a plan proposes; what a rental may cost at most is decided by
`--max_hourly_cost` and `--budget`, which hold whatever this table says.
"""

from __future__ import annotations

import dataclasses
import datetime
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.parsing import ParsingError, read_yaml
from litgpt_core.planning.gpus import find_gpu

STORAGE = 0.10
"""Dollars per GB and month of a machine's disk: what RunPod's page on prices says of container disks; others include
the disk or ask less.
"""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One kind of GPU at one provider.

    Raises:
        ConfigError: A value is out of range, or the GPU is unknown to the planner.
    """

    provider: str
    """As SkyPilot calls it: `runpod`, `lambda`, `nebius`, ..."""
    gpu: str
    """As the planner calls it: `H100`, `A100 40GB`, `RTX 4090`."""
    price: float
    """Dollars for one GPU and hour."""
    regions: tuple[str, ...] = ()
    """As SkyPilot writes them, `REGION` or `REGION/ZONE`; empty: any."""
    spot: bool = False
    """May be taken away at any time."""
    counts: tuple[int, ...] = (1, 2, 4, 8)
    """GPUs of one machine that are offered."""
    accelerator: str = ""
    """SkyPilot's name of the GPU; empty: as `gpu` without spaces."""
    storage: float = STORAGE
    """Dollars per GB and month of the disk."""
    as_of: str = ""
    """Date at which this was the price."""
    source: str = ""

    def __post_init__(self) -> None:
        find_gpu(self.gpu)
        if not 0 < self.price < 1000 or not 0 <= self.storage < 100:
            raise ConfigError(
                f"{self.provider} {self.gpu}: price {self.price}, storage {self.storage}",
                needed="dollars: a price above 0 for one GPU and hour, storage of 0 or more for a GB and month",
            )
        if not self.counts or min(self.counts) < 1:
            raise ConfigError(f"{self.provider} {self.gpu}: counts {list(self.counts)}", needed="numbers from 1 on")

    @property
    def sky_accelerator(self) -> str:
        """Name in a SkyPilot task."""
        return self.accelerator or self.gpu.replace(" ", "")


_RUNPOD = tuple(
    f"{country}/{zone}"
    for country, zones in {
        "US": "US-TX-1 US-TX-3 US-TX-4 US-KS-2 US-KS-3 US-GA-1 US-GA-2 US-CA-2 US-IL-1 US-NC-1 US-WA-1 US-DE-1",
        "CA": "CA-MTL-1 CA-MTL-2 CA-MTL-3",
        "RO": "EU-RO-1",
        "SE": "EU-SE-1",
        "CZ": "EU-CZ-1",
        "NL": "EU-NL-1",
        "FR": "EU-FR-1",
        "IS": "EUR-IS-1 EUR-IS-2 EUR-IS-3",
        "NO": "EUR-NO-1",
        "JP": "AP-JP-1",
        "AU": "OC-AU-1",
    }.items()
    for zone in zones.split()
)
"""Data centers that RunPod's own API accepts."""

_LAMBDA = (
    *("us-east-1", "us-east-2", "us-east-3", "us-west-1", "us-west-2", "us-west-3", "us-south-1", "us-south-2"),
    *("us-south-3", "us-midwest-1", "europe-central-1", "europe-south-1", "asia-south-1", "asia-northeast-1"),
    *("asia-northeast-2", "australia-east-1", "me-west-1"),
)

READ = "2026-11-29"
_CATALOG = "SkyPilot's catalog v8 (github.com/skypilot-org/skypilot-catalog, catalogs/v8/{}/vms.csv)"
_BLOG = "spheron.network/blog/runpod-h100-pricing-2026, 2026-05-22"


def _offer(provider: str, gpu: str, price: float, *, source: str = "", as_of: str = READ, **more: Any) -> Offer:
    return Offer(
        provider=provider, gpu=gpu, price=price, source=source or _CATALOG.format(provider), as_of=as_of, **more
    )


OFFERS = (
    _offer("runpod", "RTX 4090", 0.74, regions=_RUNPOD, accelerator="RTX4090"),
    _offer("runpod", "A100", 1.39, regions=_RUNPOD, accelerator="A100-80GB"),
    _offer("runpod", "H100", 2.69, regions=_RUNPOD, accelerator="H100-SXM", source=_BLOG, as_of="2026-05-22"),
    _offer("runpod", "H100 PCIe", 2.79, regions=_RUNPOD, accelerator="H100", source=_BLOG, as_of="2026-05-22"),
    _offer("lambda", "A10", 1.29, regions=_LAMBDA, counts=(1,), storage=0.0),
    _offer("lambda", "A100 40GB", 1.99, regions=_LAMBDA, counts=(1, 2), accelerator="A100", storage=0.0),
    _offer("lambda", "A100", 2.79, regions=_LAMBDA, counts=(8,), accelerator="A100-80GB", storage=0.0),
    _offer("lambda", "H100", 3.99, regions=_LAMBDA, counts=(8,), storage=0.0),
    _offer("lambda", "B200", 6.99, regions=_LAMBDA, counts=(1,), storage=0.0),
    _offer("nebius", "L40S", 1.5484, regions=("eu-north1",), counts=(1,)),
    _offer("nebius", "H100", 2.95, regions=("eu-north1",), counts=(1, 8)),
    _offer("nebius", "H100", 1.25, regions=("eu-north1",), counts=(1, 8), spot=True),
    _offer("nebius", "H200", 3.50, regions=("eu-north1", "eu-west1", "us-central1"), counts=(1, 8)),
    _offer("nebius", "H200", 1.45, regions=("eu-north1", "eu-west1", "us-central1"), counts=(1, 8), spot=True),
)
"""Dollars for one GPU and hour; regions, zones and numbers of GPUs as the same sources list them."""

_KEYS = {"provider", "gpu", "price", "regions", "spot", "counts", "accelerator", "storage", "as_of", "source"}


def read_offers(path: Path) -> tuple[Offer, ...]:
    """The offers of a user's YAML file: `offers:`, a list with the fields of `Offer`.

    Raises:
        ConfigError: It cannot be read, or an offer is wrong; all problems together.
    """
    example = "offers: [{provider: runpod, gpu: H100, price: 2.69, regions: [US/US-TX-3], spot: false}]"
    try:
        content = read_yaml(path)
    except (OSError, ParsingError) as problem:
        raise ConfigError(f"{path} cannot be read: {problem}", needed="a YAML file", fix=example) from problem
    rows = content.get("offers") if isinstance(content, Mapping) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise ConfigError(f"{path} holds no list of offers", needed=example)
    found, problems = [], []
    for number, row in enumerate(rows, 1):
        try:
            found.append(_of_row(row))
        except (ConfigError, TypeError, ValueError) as problem:
            problems.append(f"{path}, offer {number}: {problem}")
    if problems:
        raise ConfigError("\n".join(problems), needed=example)
    return tuple(found)


def _of_row(row: Mapping[str, Any]) -> Offer:
    if unknown := sorted(set(map(str, row)) - _KEYS):
        raise ConfigError(f"unknown: {', '.join(unknown)}", needed=f"of {', '.join(sorted(_KEYS))}")
    values = {key: value for key, value in row.items() if key not in ("regions", "counts", "as_of", "price", "storage")}
    for key, of in (("price", float), ("storage", float)):
        if key in row:
            values[key] = of(row[key])
    if isinstance(row.get("as_of"), (str, datetime.date)):
        values["as_of"] = str(row["as_of"])
    return Offer(
        regions=tuple(map(str, row.get("regions") or ())),
        counts=tuple(map(int, row.get("counts") or (1, 2, 4, 8))),
        **values,
    )


def select(
    offers: Sequence[Offer],
    *,
    gpus: Sequence[str] = (),
    providers: Sequence[str] = (),
    regions: Sequence[str] = (),
    spot: bool | None = None,
) -> list[Offer]:
    """The offers that a request leaves, each with the regions that it leaves.

    Args:
        offers: All.
        gpus: Names as the planner knows them; empty: all.
        providers: Empty: all.
        regions: Patterns, matched with `REGION/ZONE`, its beginning and `PROVIDER/REGION/ZONE`: `US`, `eu-*`,
            `runpod/US`. Empty: all.
        spot: None: both kinds.

    Raises:
        ConfigError: Nothing is left; says what there is.
    """
    wanted = {find_gpu(name).name for name in gpus}
    found = []
    for offer in offers:
        kept = tuple(region for region in offer.regions if _matches(offer.provider, region, regions))
        if regions and not kept:
            continue
        if wanted and find_gpu(offer.gpu).name not in wanted:
            continue
        if providers and offer.provider not in providers:
            continue
        if spot is not None and offer.spot != spot:
            continue
        found.append(dataclasses.replace(offer, regions=kept if regions else offer.regions))
    if not found:
        there = sorted({f"{offer.gpu} at {offer.provider}{' (spot)' if offer.spot else ''}" for offer in offers})
        raise ConfigError(
            "no offer fits the request",
            needed=f"of {', '.join(there)}",
            fix="--gpu, --cloud, --region and --spot ask for less; or a table of your own: --prices FILE.yaml",
        )
    return found


def _matches(provider: str, region: str, patterns: Sequence[str]) -> bool:
    names = (region, f"{provider}/{region}", region.rpartition("/")[2])
    return any(
        fnmatch.fnmatchcase(name.lower(), pattern.lower()) or name.lower().startswith(f"{pattern.lower()}/")
        for pattern in patterns
        for name in names
    )
