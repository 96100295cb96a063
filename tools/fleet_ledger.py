"""What a fleet has promised and what arrived of it, in files that its processes share: some bytes for each event.

Lists of records, as `tools.delivery.judge` takes them, would hold a gigabyte after ten minutes of a thousand devices.
Every field is written by one process alone, and read by the others once that has finished.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.delivery.judge import Arrival

_PLACE = np.dtype(
    [
        ("promised_ns", "<i8"), ("commit_us", "<i4"), ("promised_id", "S36"),  # by the device
        ("arrived_ns", "<i8"), ("arrived_id", "S36"), ("digest", "V16"),  # by the subscriber
    ]
)  # fmt: skip
_SERIES = np.dtype("S32")


class Ledger:
    """One place for each event of each device: number `seq` of the series with which the device began."""

    def __init__(self, folder: Path, devices: int, capacity: int, *, is_new: bool = False) -> None:
        """Open the ledger in `folder`, or make it.

        Args:
            folder: where its two files lie.
            devices: how many.
            capacity: most events of a device.
            is_new: make it, empty.
        """
        mode: Any = "w+" if is_new else "r+"
        shape = (devices, capacity)
        self.places: NDArray[Any] = np.asarray(np.memmap(folder / "places.dat", _PLACE, mode, shape=shape))
        self._series: NDArray[Any] = np.asarray(
            np.memmap(folder / "series.dat", _SERIES, mode, shape=(devices,))
        )
        self.elsewhere = 0
        """Events promised here or arrived here that no place is for: of another series or beyond the capacity."""

    def begin(self, device: int, series: str) -> None:
        """Note which series the device numbers its events in; before its first event."""
        self._series[device] = series.encode()

    def promise(
        self, device: int, series: str, seq: int, id_: str, promised_ns: int, commit_ms: float
    ) -> None:
        """Note that the device's outbox has committed an event; times as in `tools.delivery.judge.Promise`."""
        if (row := self.row(device, series, seq)) is not None:
            row["promised_ns"], row["commit_us"] = promised_ns, round(commit_ms * 1e3)
            row["promised_id"] = id_.encode()

    def row(self, device: int, series: str, seq: int) -> Any:
        """Give the place of an event, to be read and written; None, and one more `elsewhere`, if there is none."""
        is_known = 0 <= device < len(self._series) and bytes(self._series[device]) == series.encode()
        if not is_known or not 1 <= seq <= self.places.shape[1]:
            self.elsewhere += 1
            return None
        return self.places[device, seq - 1]


@dataclass(slots=True)
class Sight:
    """The subscriber's side: notes arrivals as they come, and counts what can only be seen then."""

    ledger: Ledger
    out_of_order: int = 0
    """First arrivals with a lower number than one that was there before."""
    duplicates_seen: int = 0
    """Messages with a place and an id that were there before."""
    duplicates_after_dedup: int = 0
    """Messages whose place another id has taken: no subscriber can tell which counts."""
    altered: int = 0
    """Messages sent again with another content."""

    _highest: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._highest = np.zeros(len(self.ledger.places), np.int64)

    def arrive(self, device: int, arrival: Arrival) -> None:
        """Note a message of a device."""
        row = self.ledger.row(device, arrival.series, arrival.seq)
        if row is None:
            return
        if row["arrived_ns"]:
            if row["arrived_id"] != arrival.id.encode():
                self.duplicates_after_dedup += 1
                return
            self.duplicates_seen += 1
            self.altered += bytes(row["digest"]) != arrival.digest
            return
        row["arrived_ns"], row["arrived_id"] = arrival.at_ns, arrival.id.encode()
        row["digest"] = np.void(arrival.digest)
        self.out_of_order += arrival.seq < self._highest[device]
        self._highest[device] = max(arrival.seq, self._highest[device])


@dataclass(frozen=True, slots=True)
class Sums:
    """What the ledger says at the end."""

    published: int
    """Events that a device's outbox had committed."""
    arrived: int
    lost: int
    """Committed, and never arrived."""
    holes: int
    """Numbers between 1 and a device's highest that never arrived."""
    renumbered: int
    """Events that arrived at the place of another one."""
    unpromised: int
    """Arrived without having been committed."""
    delays_ms: NDArray[np.float64]
    """Commit to arrival, of all that arrived, sorted."""
    commits_ms: NDArray[np.float64]
    """Time that a commit took, sorted."""
    worst: tuple[tuple[int, int], ...]
    """The devices with most events lost or missing: index, and how many."""


def add_up(ledger: Ledger) -> Sums:
    """Compare both sides, after every process has finished."""
    places = ledger.places
    promised, arrived = places["promised_ns"] > 0, places["arrived_ns"] > 0
    both = promised & arrived
    numbers = np.arange(1, places.shape[1] + 1)
    highest = np.where(arrived, numbers, 0).max(axis=1)
    is_hole = ~arrived & (numbers <= highest[:, None])
    is_lost = promised & ~arrived
    missing = (is_lost | is_hole).sum(axis=1)
    worst = [int(index) for index in np.argsort(-missing, kind="stable")[:5] if missing[index]]
    return Sums(
        published=int(promised.sum()),
        arrived=int(arrived.sum()),
        lost=int(is_lost.sum()),
        holes=int(is_hole.sum()),
        renumbered=int((both & (places["promised_id"] != places["arrived_id"])).sum()),
        unpromised=int((arrived & ~promised).sum()),
        delays_ms=np.sort((places["arrived_ns"] - places["promised_ns"])[both] / 1e6),
        commits_ms=np.sort(places["commit_us"][promised] / 1e3),
        worst=tuple((index, int(missing[index])) for index in worst),
    )
