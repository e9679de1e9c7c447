"""Query strings: what is not understood is refused, never ignored."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_broker.http.problems import Problem
from thingctl_broker.http.query import HELD_MAX, LIMIT_DEFAULT, LIMIT_MAX, WAIT_MAX, Parameters
from thingctl_protocol.statuses import Status

KNOWN = frozenset({"wait", "limit", "cursor", "status", "thingId"})


def parse(query):
    return Parameters(query.encode() if isinstance(query, str) else query, KNOWN)


def test_nothing_given_is_the_defaults():
    asked = parse("")
    assert (asked.wait(), asked.limit(), asked.cursor(), asked.statuses()) == (
        None,
        LIMIT_DEFAULT,
        None,
        None,
    )


@given(st.integers(-10, LIMIT_MAX + 10))
def test_limits(limit):
    if 1 <= limit <= LIMIT_MAX:
        assert parse(f"limit={limit}").limit() == limit
    else:
        with pytest.raises(Problem):
            parse(f"limit={limit}").limit()


@given(st.decimals(-1, 62, places=3))
def test_waits(seconds):
    if 0 < seconds <= WAIT_MAX:
        assert parse(f"wait={seconds}").wait() == min(float(seconds), HELD_MAX)
    else:
        with pytest.raises(Problem):
            parse(f"wait={seconds}").wait()


@pytest.mark.parametrize("text", ["5e-324", "2E1", "1.5e+1", "60.000000000001e0"])
def test_a_wait_is_any_number_of_json(text):
    seconds = float(text)
    if seconds <= WAIT_MAX:
        assert parse(f"wait={text.replace('+', '%2B')}").wait() == seconds
    else:
        with pytest.raises(Problem):
            parse(f"wait={text}").wait()


@pytest.mark.parametrize("text", ["0", "1.", ".5", "0x10", "1e", "inf", "1" + "0" * 40])
def test_no_wait(text):
    with pytest.raises(Problem):
        parse(f"wait={text}").wait()


@given(st.lists(st.sampled_from(list(Status)), min_size=1), st.booleans())
def test_statuses_repeated_or_with_commas(statuses, commas):
    query = urlencode({"status": ",".join(statuses)}) if commas else "&".join(f"status={s}" for s in statuses)
    assert parse(query).statuses() == frozenset(statuses)


@given(st.binary(max_size=40) | st.text(max_size=30).map(lambda t: quote(t).encode()))
def test_any_query_is_parsed_or_refused(query):
    with suppress(Problem):
        asked = parse(query)
        for method in (asked.wait, asked.limit, asked.cursor, asked.statuses):
            method()


@given(st.text(min_size=1).filter(lambda name: name not in KNOWN))
def test_an_unknown_parameter_is_named(name):
    with pytest.raises(Problem) as raised:
        parse(urlencode({name: "x"}, errors="surrogatepass"))
    assert raised.value.details.parameter in {name, None}
