"""The work that an event loop lends to threads: who has it, who waits for whom, and who takes it back."""

from __future__ import annotations

import threading

import pytest

from machine.errors import StateError
from machine.io.lent_work import LentWork, handed_to_loop


def in_thread(function):
    """Call a function in a thread of its own; the thread, and where its result will be."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    return thread, results


def test_work_that_is_not_lent_is_not_done_elsewhere():
    assert not LentWork().begin()


def test_work_that_is_lent_is_done_by_one_thread_until_it_ends():
    work = LentWork()
    with work.lent():
        assert work.begin()
        assert work.is_done_here
        thread, results = in_thread(lambda: work.begin() and not work.end())
        thread.join(0.05)
        assert thread.is_alive()  # it waits
        work.end()
        thread.join(10)
        assert results == [True]
        assert not work.is_done_here


def test_the_loop_waits_for_the_thread_that_does_its_work_before_it_goes_on():
    work = LentWork()
    with work.lent():
        assert work.begin()
        thread, _ = in_thread(work.take_back)
        thread.join(0.05)
        assert thread.is_alive()
        work.end()
        thread.join(10)
        assert not thread.is_alive()
        assert not work.begin()


def test_a_call_that_is_handed_to_the_loop_gives_it_the_work_until_it_returns():
    work = LentWork()
    with work.lent():
        with handed_to_loop(work):
            assert not work.begin()
            work.used_on_loop()  # by that call
        assert work.begin()
        work.end()


def test_a_use_on_the_loop_that_no_thread_has_handed_to_it_takes_the_work_back_for_good():
    work = LentWork()
    with work.lent():
        work.used_on_loop()
        assert not work.begin()
        with handed_to_loop(work):
            pass
        assert not work.begin()


def test_a_thread_that_does_the_work_of_the_loop_cannot_wait_for_it():
    work = LentWork()
    with work.lent():
        assert work.begin()
        with pytest.raises(StateError, match="waits for the event loop"), handed_to_loop(work):
            pass
        work.end()
        assert work.begin()  # nothing is left over
        work.end()


def test_a_loop_that_lends_nothing_is_handed_every_call():
    with handed_to_loop(None):
        pass
