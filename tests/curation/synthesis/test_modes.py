import pytest

from trine.curation.synthesis.modes import DEFAULT_MODE, MODES

PAYLOAD = ("S1", "S2")


def test_the_order_of_the_fields_is_the_order_of_the_thought():
    assert MODES["json_schema"].fields(PAYLOAD) == MODES["free_then_json"].fields(PAYLOAD) == ("refusal", "S1", "S2")
    assert MODES["json_with_reasoning_field"].fields(PAYLOAD) == (
        *("observation", "phenomenon", "conclusion"),
        *("refusal", "S1", "S2"),
    )
    assert MODES["json_with_reasoning_field_last"].fields(PAYLOAD) == (
        *("refusal", "S1", "S2"),
        *("conclusion", "phenomenon", "observation"),
    )
    assert DEFAULT_MODE in MODES


@pytest.mark.parametrize("language", ["en", "ko"])
def test_all_modes_have_the_same_core_and_name_their_keys_in_order(language):
    for mode in MODES.values():
        first = mode.first_turn("THE CORE", PAYLOAD, language=language)
        assert first.startswith("THE CORE\n\n")
        end = mode.last_turn(PAYLOAD, language=language)
        assert ", ".join(f'"{name}"' for name in mode.fields(PAYLOAD)) in end
        assert (end in first) == (not mode.thinks)
        assert ("observation" in end) == bool(mode.reasons)
    thinking = MODES["free_then_json"].first_turn("c", PAYLOAD, language=language)
    assert "60" in thinking
    assert '"S1"' not in thinking


def test_the_control_differs_in_the_order_alone():
    one, other = (
        MODES[name].last_turn(PAYLOAD, language="en")
        for name in ("json_with_reasoning_field", "json_with_reasoning_field_last")
    )
    assert one != other
    assert sorted(one.replace(",", "").replace(".", "").split()) == sorted(
        other.replace(",", "").replace(".", "").split()
    )
