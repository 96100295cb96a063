"""Nobody is watched in the dark: the capture LED is lit whenever the camera may be open."""

import logging
from collections import Counter
from collections.abc import Iterator

import pytest

from edge.config import History as HistoryConfig
from edge.config import Outbox as OutboxConfig
from edge.feed import Reader
from edge.frames import FrameSource
from edge.store.outbox import Outbox
from tests.interlock import History

HISTORIES = 1000
LEAST = {
    "frames": 3000, "opened": 1000, "refused": 200, "crashed": 100, "closed": 1000, "switched on": 500,
    "pause": 500, "resume": 500, "replaced": 100, "started": 1000, "abandoned with the camera open": 50,
    "kept by its driver": 10, "switch unreadable": 100, "LED dead": 100,
}  # fmt: skip
"""What all histories together must have been through, so that they prove something."""


@pytest.fixture
def outbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    """The device's memory; without waits, which the histories do not need, and without a thousand warnings."""
    monkeypatch.setattr("edge.feed.RETRY_S", (0.0, 0.0))
    monkeypatch.setattr("edge.control.CLOSE_S", 0.0)
    logging.disable(logging.CRITICAL)
    outbox = Outbox(None, OutboxConfig(), HistoryConfig(days=0))
    yield outbox
    outbox.close()
    logging.disable(logging.NOTSET)


def test_the_capture_led_is_lit_whenever_the_camera_may_be_open_in_a_thousand_random_histories(
    outbox: Outbox,
) -> None:
    counts: Counter[str] = Counter()
    for seed in range(HISTORIES):
        history = History(seed, outbox)
        assert history.run() == []
        counts += history.counts
    print(dict(counts))
    assert {what: counts[what] for what, least in LEAST.items() if counts[what] < least} == {}


class LitTooLate(Reader):
    """Opens the camera and then lights the LED."""

    def _opened(self) -> FrameSource | None:
        source = self._open()
        self._holds_source = True
        self._light(True)
        return source


class DarkTooEarly(Reader):
    """Puts the LED out and then closes the camera."""

    def _close_source(self) -> None:
        if self._source is not None:
            self._light(False)
        super()._close_source()


@pytest.mark.parametrize("wrong", [LitTooLate, DarkTooEarly])
def test_a_reader_with_a_wrong_order_does_not_get_through(wrong: type[Reader], outbox: Outbox) -> None:
    assert any(History(seed, outbox, wrong).run() for seed in range(20))
