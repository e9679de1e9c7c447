"""Where the store is; and that nothing tells the password."""

import msgspec
import pytest

from thingctl_broker.storage.postgres.settings import StoreSettings, check_url, shown
from thingctl_broker.storage.postgres.store import PostgresStore

SECRET = "ge%40heim"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@db.example:5432/fleet?sslmode=verify-full",
        "postgres://db/fleet",
        "postgresql://[::1]:5433/fleet",
        "postgresql://me@db/fleet?sslmode=require&sslrootcert=/etc/ca.pem",
    ],
)
def test_urls_that_name_a_database(url):
    check_url(url)
    assert SECRET not in shown(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "fleet",
        "mysql://me:geheim@db/fleet",
        "postgresql:///fleet",
        "postgresql://me:geheim@db",
        "postgresql://me:geheim@db/",
        "postgresql://me:geheim@db/a/b",
        "postgresql://me:geheim/x@db/fleet",
        "postgresql://me:geheim@db:0/fleet",
        "postgresql://me:geheim@db:x/fleet",
        "postgresql://me:geheim@[db/fleet",
        "postgresql://me:geheim@db/fleet?sslmode=geheim",
        "postgresql://me:geheim@db/fleet?a=b&sslmode=",
    ],
)
def test_what_names_none_is_refused_without_a_word_of_the_password(url):
    with pytest.raises(ValueError) as refused:
        PostgresStore(StoreSettings(url=url))
    assert "geheim" not in str(refused.value)
    assert "geheim" not in shown(url)


def test_settings_can_be_logged():
    settings = StoreSettings(url=f"postgresql://me:{SECRET}@db/fleet?password=geheim")
    for text in (repr(settings), str(settings), f"{settings}", repr([settings])):
        assert "heim" not in text
        assert "postgresql://db/fleet" in text


@pytest.mark.parametrize(
    "values", [{"pool": 1}, {"statement_timeout": 0}, {"patience": -1}, {"connect_timeout": 0}, {"other": 1}]
)
def test_bounds(values):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"url": "postgresql://db/x"} | values, StoreSettings)
