"""Secrets of an environment do not reach an error page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.redaction import REDACTED, is_secret_name, redact, redact_value

SECRET_NAMES = [
    "MYKEY",
    "SECRET_KEY",
    "DB_PASSWORD",
    "db_password",
    "MYSQL_PWD",
    "PGPASSWORD",
    "API_KEY",
    "APIKEY",
    "STRIPE_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SESSION_TOKEN",
    "GITHUB_TOKEN",
    "SENTRY_DSN",
    "HTTP_AUTHORIZATION",
    "BASIC_AUTH",
    "SESSION_COOKIE_VALUE",
    "PRIVATE_PEM",
    "SLACK_WEBHOOK_URL",
    "PASSWORD_SALT",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "VCAP_SERVICES",
    "AZURE_STORAGE_CONNECTION_STRING",
    "SIGNING_KEYS",
    "PASSENGER_TRIO_SPAWN_TOKEN",
]
HARMLESS_NAMES = [
    "PATH",
    "HOME",
    "PWD",
    "OLDPWD",
    "LANG",
    "AUTHOR",
    "KEYBOARD",
    "SSH_AUTH_SOCK",
    "DJANGO_SETTINGS_MODULE",
    "PASSENGER_APP_ENV",
    "AWS_REGION",
    "COMPASS",
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)
    assert redact({name: "hunter2"}) == ((name, REDACTED),)


@pytest.mark.parametrize("name", HARMLESS_NAMES)
def test_names_that_are_none(name: str) -> None:
    assert not is_secret_name(name)
    assert redact({name: "/usr/bin"}) == ((name, "/usr/bin"),)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgres://user:hunter2@db:5432/shop", f"postgres://{REDACTED}@db:5432/shop"),
        ("postgres://user:hun@ter/2@db/shop", f"postgres://{REDACTED}@db/shop"),
        ("redis://:hunter2@cache/0", f"redis://{REDACTED}@cache/0"),
        ("https://example.org/a?b=c", "https://example.org/a?b=c"),
        ("host=db password=hunter2 user=shop", f"host=db password={REDACTED} user=shop"),
        ("host=db password='hunter 2' user=shop", f"host=db password={REDACTED} user=shop"),
        ("Server=db;Pwd=hunter2;Timeout=3", f"Server=db;Pwd={REDACTED};Timeout=3"),
        ('{"password": "hunter2", "user": "shop"}', f'{{"password": {REDACTED}, "user": "shop"}}'),
        ("https://example.org/?api_key=hunter2&page=1", f"https://example.org/?api_key={REDACTED}&page=1"),
        ("-----BEGIN RSA PRIVATE KEY-----\nhunter2", REDACTED),
        ("ghp_0123456789abcdefghij", REDACTED),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.xyz", REDACTED),
        ("/usr/local/bin:/usr/bin", "/usr/local/bin:/usr/bin"),
    ],
)
def test_values_that_show_a_secret(value: str, shown: str) -> None:
    assert redact_value(value) == shown


def test_an_empty_secret_shows_that_it_is_empty() -> None:
    assert redact({"API_KEY": ""}) == (("API_KEY", ""),)


def test_the_order_is_that_of_the_names() -> None:
    assert [name for name, _ in redact({"b": "1", "a": "2"})] == ["a", "b"]


@given(
    st.text(st.characters(exclude_categories=["Z", "C"]), min_size=8, max_size=20).filter(lambda text: "@" not in text)
)
def test_a_password_in_a_url_never_shows(password: str) -> None:
    shown = redact_value(f"postgres://shop:{password}@db/x")
    assert password not in shown
