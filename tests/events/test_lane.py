"""A lane: a refusal closes it for longer each time, and leaves what gets through its way."""

from __future__ import annotations

from sandboxd.events.lane import Lane


def lane(width: int = 16) -> Lane:
    return Lane("t", width, (1.0, 300.0))


def run(one: Lane, *numbers: int) -> None:
    one.running.update(numbers)


def refuse(one: Lane, now: float, *numbers: int) -> None:
    for number in numbers:
        one.refused(now)
        one.running.discard(number)


def test_where_nothing_gets_through_one_tries_after_a_pause_that_doubles() -> None:
    one, now, pauses = lane(), 1000.0, []
    assert one.room(now) == 16
    for _ in range(12):
        run(one, 1)
        refuse(one, now, 1)
        assert one.room(now) == 0
        pauses.append(one.closed_until - now)
        now = one.closed_until
        assert one.room(now) == 1
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_what_got_through_goes_on_without_a_pause() -> None:
    one = lane()
    run(one, *range(16))
    refuse(one, 1000.0, *range(2, 16))
    assert (one.running, one.width, one.refusals) == ({0, 1}, 2, 1)
    assert one.room(1000.0) == 0
    one.passed()
    one.running.discard(0)
    assert one.room(1000.0) == 1


def test_it_widens_by_one_when_all_that_may_run_got_through() -> None:
    one = lane(4)
    run(one, 1)
    refuse(one, 1000.0, 1)
    widths = []
    for _ in range(8):
        one.passed()
        widths.append(one.width)
    assert widths == [1, 2, 2, 3, 3, 3, 4, 4]


def test_one_more_tries_after_the_pause_while_others_run_on() -> None:
    one = lane(3)
    run(one, 1, 2)
    refuse(one, 1000.0, 2)
    assert (one.room(1000.9), one.room(1001.0)) == (0, 1)
    run(one, 3)
    refuse(one, 1001.0, 3)
    assert (one.room(1002.9), one.room(1003.0)) == (0, 1)
    run(one, 4, 5)
    assert one.room(1003.0) == 0


def test_many_refused_at_one_moment_are_one_refusal() -> None:
    one = lane()
    run(one, 1, 2, 3)
    for delay, number in ((0.0, 1), (0.1, 2), (0.9, 3)):
        refuse(one, 1000.0 + delay, number)
    assert (one.closed_until, one.refusals) == (1001.0, 1)
