"""The table of an environment's life."""

from __future__ import annotations

import itertools

import pytest

from sandboxd.environment.lifecycle import TRANSITIONS, IllegalTransition, Lifecycle, State


def reachable(state: State) -> set[State]:
    seen: set[State] = set()
    todo = [state]
    while todo:
        for target in TRANSITIONS[todo.pop()] - seen:
            seen.add(target)
            todo.append(target)
    return seen


def test_every_state_leads_to_the_end_and_the_end_leads_nowhere() -> None:
    assert set(TRANSITIONS) == set(State)
    assert reachable(State.NEW) == set(State) - {State.NEW}
    assert all(State.DEAD in reachable(state) for state in State if state is not State.DEAD)
    assert TRANSITIONS[State.DEAD] == frozenset()


def test_everything_else_is_illegal_and_tells_the_story() -> None:
    for source, target in itertools.product(State, State):
        life = Lifecycle("environment 7")
        life.go(State.STARTING, 1.0)
        life.note("a note", 1.5)
        life.state = source
        if target in TRANSITIONS[source]:
            life.go(target, 2.0)
            assert life.state is target
            continue
        with pytest.raises(IllegalTransition) as raised:
            life.go(target, 2.0)
        assert str(raised.value) == (
            f"environment 7: {source.value} -> {target.value}\n  1.000000 Starting\n  1.500000 a note"
        )
        assert life.state is source
