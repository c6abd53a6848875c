import pytest

from curation.synthesis.jobs import passage
from trine.curation.synthesis.budget import Budget, Prices
from trine.curation.synthesis.modes import MODES
from trine.curation.synthesis.plan import mix_of
from trine.curation.synthesis.preview import preview
from trine.curation.synthesis.run import Settings, synthesize
from trine.errors import UsageError


def settings(count, *groups, **options):
    return Settings(mix_of(groups, ["ko"], grounded=False), count, **options)


@pytest.mark.parametrize("mode", MODES)
def test_the_calls_are_those_of_a_run_without_rejects(serve, endpoint, tmp_path, mode):
    server = serve()
    shown = preview(settings(70, "short-long", "sts", mode=mode))
    assert server.bodies == []
    done = synthesize(tmp_path, endpoint(server), settings(70, "short-long", "sts", mode=mode))
    assert done.report["rejected"] == 0
    assert shown.calls == server.paid
    assert shown.brainstorms == done.report["usage"]["brainstorm"]["calls"]
    first = [server.bodies[0]["messages"][0]["content"], shown.prompts[0][1]]
    assert first[0] == first[1]


def test_each_group_shows_its_prompts_once():
    names = [name for name, _ in preview(settings(50)).prompts]
    assert names.count("example short-long/ko") == names.count("brainstorm short-long/ko") == 1
    assert "brainstorm sts/ko" not in names
    assert len(names) == len(set(names))


def test_the_price_is_that_of_the_tokens():
    shown = preview(settings(10, "sts", budget=Budget(prices=Prices(1.0, 2.0))))
    assert shown.cost == pytest.approx((shown.input_tokens + 2 * shown.output_tokens) / 1e6)
    assert preview(settings(10, "sts")).cost is None
    assert shown.to_dict()["prompts"][0]["name"] == "example sts/ko"


def test_all_modes_cost_what_each_costs():
    each = [preview(settings(20, "sts", mode=mode)) for mode in MODES]
    together = preview(settings(20, "sts"), modes=tuple(MODES))
    assert together.calls == sum(one.calls for one in each)
    assert together.input_tokens == sum(one.input_tokens for one in each)
    assert together.jobs == 80


def test_passages_bound_it():
    mix = mix_of([], [], grounded=True)
    assert preview(Settings(mix, 100), [passage()]).calls == 1
    with pytest.raises(UsageError, match="nothing to write"):
        preview(Settings(mix, 100), [])
