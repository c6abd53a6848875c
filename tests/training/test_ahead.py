import threading
import time

import numpy as np
import pytest

from trine.data.sampling import Part, Sampler, Sampling
from trine.errors import DataError
from trine.training.ahead import Ahead


def sampler(**more):
    return Sampler([Part("a", np.full(20, 3))], sampling=Sampling(batch_size=2, **more))


def rows(pair):
    return pair[0].rows.tolist()


def test_the_position_is_that_of_what_was_handed_out():
    ahead = Ahead(sampler(), lambda draw: draw.step * 10)
    assert [ahead.next()[1] for _ in range(3)] == [0, 10, 20]
    state = ahead.state()
    following = [rows(ahead.next()) for _ in range(4)]
    ahead.close()
    other = Ahead(sampler(), lambda draw: None)
    other.next()
    other.load(state)
    assert [rows(other.next()) for _ in range(4)] == following
    other.close()


def test_the_next_is_prepared_while_this_one_is_used():
    started, main = threading.Event(), threading.get_ident()
    threads = set()

    def prepare(draw):
        threads.add(threading.get_ident())
        if draw.step == 1:
            started.set()

    ahead = Ahead(sampler(), prepare)
    ahead.next()
    assert started.wait(10)
    assert main not in threads
    ahead.close()


def test_it_ends_with_the_sampler_and_stays_ended():
    ahead = Ahead(sampler(steps=2), lambda draw: draw.step)
    assert [ahead.next()[1], ahead.next()[1]] == [0, 1]
    for _ in range(2):
        with pytest.raises(StopIteration):
            ahead.next()
    ahead.close()


def test_an_error_comes_out_and_the_place_is_kept():
    broken = {2}

    def prepare(draw):
        if draw.step in broken:
            raise DataError("a.jsonl:7: broken")
        return draw.step

    ahead = Ahead(sampler(), prepare)
    assert [ahead.next()[1] for _ in range(2)] == [0, 1]
    for _ in range(2):
        with pytest.raises(DataError, match="a.jsonl:7"):
            ahead.next()
    broken.clear()
    assert ahead.next()[1] == 2
    ahead.close()


def test_a_refused_position_changes_nothing():
    ahead = Ahead(sampler(), lambda draw: draw.step)
    ahead.next()
    with pytest.raises(Exception, match="sources"):
        ahead.load({"sources": {"b": {}}, "settings": {}, "step": 0})
    assert ahead.next()[1] == 1
    ahead.close()


def test_closing_waits_for_what_is_under_way_and_can_be_gone_on_from():
    def slow(draw):
        time.sleep(0.01)
        return draw.step

    ahead = Ahead(sampler(), slow)
    assert ahead.next()[1] == 0
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("trine-batches")]
    assert ahead.next()[1] == 1
    ahead.close()
