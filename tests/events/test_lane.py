"""A lane: a refusal closes it for longer each time, what gets through widens it."""

from __future__ import annotations

from sandboxd.events.lane import Lane


def test_refusals_and_what_gets_through() -> None:
    lane = Lane("t", 16, (1.0, 300.0))
    assert lane.room == 16
    now, pauses = 1000.0, []
    for _ in range(12):
        lane.refused(now)
        pauses.append(lane.closed_until - now)
        now = lane.closed_until
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert lane.room == 1
    widths = []
    for _ in range(6):
        lane.passed()
        widths.append(lane.width)
    assert widths == [2, 4, 8, 16, 16, 16]
    lane.refused(now)
    assert lane.closed_until == now + 1


def test_many_refused_at_one_moment_are_one_refusal() -> None:
    lane = Lane("t", 16, (1.0, 300.0))
    for delay in (0.0, 0.1, 0.9):
        lane.refused(1000.0 + delay)
    assert (lane.closed_until, lane.refusals) == (1001.0, 1)


def test_what_runs_takes_room() -> None:
    lane = Lane("t", 2, (1.0, 300.0))
    lane.running |= {1, 2}
    assert lane.room == 0
    lane.refused(0.0)
    assert lane.room == 0
