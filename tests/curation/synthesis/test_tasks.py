import pytest

from trine.curation.llm import Reply
from trine.curation.synthesis.parsing import Rejected
from trine.curation.synthesis.plan import Plan, mix_of
from trine.curation.synthesis.tasks import Brainstorm, TaskPools


def plan(count, *groups, languages=("ko",)):
    return Plan(mix_of(groups, languages, grounded=False)).take(count)


def named(count, start=0):
    return [f"{number}번 과제를 푼다." for number in range(start, start + count)]


def test_as_many_calls_as_the_tasks_need():
    pools = TaskPools(per_task=3)
    jobs = plan(150, "short-long")  # 50 tasks: three calls of twenty
    calls = pools.missing(jobs)
    assert [(call.group, call.prompts, call.number) for call in calls] == [("short-long", "ko", n) for n in range(3)]
    for call in calls:
        pools.add(call, named(20, 20 * call.number))
    assert pools.missing(jobs) == []
    assert len(pools) == 60
    assert [pools.task(job) for job in jobs[:4]] == ["0번 과제를 푼다."] * 3 + ["1번 과제를 푼다."]
    assert pools.task(jobs[149]) == "49번 과제를 푼다."


def test_groups_with_a_fixed_task_need_none():
    pools = TaskPools(per_task=1)
    jobs = plan(4, "sts", "bitext")
    assert pools.missing(jobs) == []
    assert {pools.task(job) for job in jobs} == {"뜻이 같은 글을 찾는다.", "글의 번역을 찾는다."} | {
        job.group.task["en"] for job in jobs if job.prompts == "en"
    }


def test_calls_that_bring_nothing_new_end_and_tasks_are_used_again():
    pools = TaskPools(per_task=1)
    jobs = plan(30, "short-short")
    rounds = 0
    while calls := pools.missing(jobs):
        rounds += 1
        for call in calls:
            pools.add(call, ["하나뿐인 과제를 푼다."])
    assert rounds <= 5
    assert pools.task(jobs[29]) == "하나뿐인 과제를 푼다."


def test_a_group_without_any_task_has_none():
    pools = TaskPools(per_task=1)
    jobs = plan(1, "short-short")
    for _ in range(3):
        for call in pools.missing(jobs):
            pools.add(call, [])
    assert pools.missing(jobs) == []
    assert pools.task(jobs[0]) is None


def test_every_call_is_another_request_with_the_same_prompt():
    how = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 100}
    one, two = (Brainstorm("short-long", "ko", number).request(**how) for number in (0, 1))
    assert one.messages == two.messages
    assert one.key("m") != two.key("m")
    assert one.fields == ()
    assert "20개" in one.messages[0]["content"]


def test_tasks_in_another_language_are_left_out():
    call = Brainstorm("short-long", "ko", 0)
    assert call.found(Reply("증상이 주어지면 원인을 찾는다.\nGiven a symptom, find the cause.", "stop")) == [
        "증상이 주어지면 원인을 찾는다."
    ]
    with pytest.raises(Rejected, match="wrong language"):
        call.found(Reply("Given a symptom, find the cause.", "stop"))
