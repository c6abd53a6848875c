from trine.encoding.bulk.plan import Survey
from trine.encoding.bulk.progress import Pace
from trine.encoding.bulk.workers import Done


def done(number, characters, tokens):
    return Done(number, 10, characters, "a:1", "a:10", 1, "", tokens)


def test_speed_and_time_left_are_of_what_this_run_encoded():
    found = Survey((), (b"",) * 4, 40, 1000, True, 0, ())
    now, said = 100.0, []
    pace = Pace(found, said.append, clock=lambda: now)
    pace.begin()
    assert (said[-1].texts, said[-1].total, said[-1].total_shards, said[-1].seconds_left) == (0, 40, 4, None)
    pace.count(done(0, 400, 0), fresh=False)
    assert said[-1].tokens_per_second is None
    now += 2
    pace.count(done(1, 200, 50), fresh=True)
    # 200 characters in 2 seconds, 400 of 1000 left.
    assert (said[-1].texts, said[-1].shards, said[-1].tokens_per_second, said[-1].seconds_left) == (20, 2, 25.0, 4.0)
    now += 2
    pace.count(done(2, 400, 70), fresh=True)
    assert (said[-1].tokens_per_second, said[-1].seconds_left) == (30.0, 0.0)
    assert (pace.fresh_shards, pace.fresh_tokens, pace.seconds) == (2, 120, 4.0)
