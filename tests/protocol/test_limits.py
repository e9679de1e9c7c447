"""The bounds make sense together."""

from thingctl_protocol import limits


def test_every_bound_is_a_positive_whole_number_with_a_reason_beside_it():
    bounds = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert len(bounds) >= 12
    assert all(type(value) is int and value > 0 for value in bounds.values())


def test_the_default_ttl_lies_within_its_bounds():
    assert limits.TTL_MIN <= limits.TTL_DEFAULT <= limits.TTL_MAX == 7 * 24 * 3600


def test_a_payload_holds_any_reason_and_progress_that_its_own_bounds_allow():
    # 6 bytes: the longest way to write one character of the basic plane in JSON, \uXXXX.
    longest = 6 * (limits.REASON_CODE_MAX + limits.REASON_DESCRIPTION_MAX + limits.PROGRESS_MESSAGE_MAX)
    assert longest < limits.PAYLOAD_MAX
