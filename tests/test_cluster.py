"""A device loses no event when a node of a cluster dies under it."""

from pathlib import Path

import pytest

from tools.cluster import NATS_SERVER, run


@pytest.mark.skipif(NATS_SERVER is None, reason="nats-server is not installed: pip install -e .[cluster]")
def test_no_event_is_lost_when_a_node_of_the_cluster_is_killed(tmp_path: Path) -> None:
    outcome = run(tmp_path, events=100, killed="bystander", rate_hz=200.0, down_s=0.2, seed=3)
    assert not outcome.problems
    assert outcome.verdict.is_clean, outcome.verdict.findings
    assert outcome.verdict.promised >= 100
