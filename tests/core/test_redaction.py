"""Secrets of an environment do not reach an error page."""

from __future__ import annotations

import random
import re
import secrets
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.redaction import (
    _SHAPES,
    REDACTED,
    is_random,
    is_secret_name,
    redact,
    redact_text,
    redact_value,
)

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


X = "0aB1cD2eF3gH4iJ5kL6mN7oP8qR9"
KEYS: dict[str, list[str]] = {
    "private key": [
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQOY\n-----END PGP PRIVATE KEY BLOCK-----",
    ],
    "JSON web token": [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJ",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0",
    ],
    "GitHub": ["ghp_" + X, "gho_" + X, "github_pat_11ABCDEFG0" + X],
    "GitLab": ["glpat-" + X, "gldt-" + X],
    "Slack": ["xoxb-123456789012-abcdef", "xapp-1-A0123456789-abc"],
    "Slack webhook": ["hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXX"],
    "Stripe": ["sk_live_" + X, "rk_test_" + X, "whsec_" + X],
    "Anthropic, OpenAI and alike": ["sk-ant-api03-" + X, "sk-proj-" + X, "sk-" + X],
    "AWS": ["AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE"],
    "Google": ["AIza" + X + "abcdefg", "ya29." + X, "GOCSPX-" + X],
    "SendGrid": ["SG." + X + "." + X],
    "Shopify": ["shpat_0123456789abcdef0123456789abcdef"],
    "DigitalOcean": ["dop_v1_0123456789abcdef0123456789abcdef"],
    "npm, PyPI, RubyGems": ["npm_" + X, "pypi-AgEIcHlwaS5vcmc" + X, "rubygems_0123456789abcdef0123"],
    "Hugging Face": ["hf_" + X],
    "Vault": ["hvs." + X],
    "age": ["AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQ"],
    "Sentry, with its secret": ["sntrys_" + X],
}
NO_KEYS: dict[str, list[str]] = {
    "private key": ["-----BEGIN CERTIFICATE-----\nMIIB", "-----BEGIN PUBLIC KEY-----", "a PRIVATE KEY"],
    "JSON web token": ["eyJhbGciOiJIUzI1", "key.eyJ.eyJ"],
    "GitHub": ["ghp_", "gh_pages", "graph_partition_of_words"],
    "GitLab": ["glpat-", "global-pattern-of-words"],
    "Slack": ["xoxb", "xbox-one-controller"],
    "Slack webhook": ["hooks.slack.com"],
    "Stripe": ["pk_live_abcdefgh", "sk_live", "task_live_migration_script"],
    "Anthropic, OpenAI and alike": ["sk-SK", "disk-usage-of-the-machine", "sk-learn"],
    "AWS": ["AKIA", "SLOVAKIAANDCZECHIAAREHERE", "akiaiosfodnn7"],
    "Google": ["AIzaBell", "ya29"],
    "SendGrid": ["SG.UTF-8", "MSG.first.second"],
    "Shopify": ["shpat_", "ship_at_once"],
    "DigitalOcean": ["dop_v1_", "dop_v2_zzz"],
    "npm, PyPI, RubyGems": ["npm_config_cache", "pypi-mirror", "rubygems_update"],
    "Hugging Face": ["hf_home"],
    "Vault": ["hvs.example", "hv.socket"],
    "age": ["AGE-SECRET-KEY-1"],
    "Sentry, with its secret": ["sntrys_", "sentry_environment"],
}


@pytest.mark.parametrize("kind", _SHAPES)
def test_OB10_a_known_shape_is_a_secret_whatever_its_name(kind: str) -> None:
    """And what only begins alike is none. Each kind has both."""
    for key in KEYS[kind]:
        assert re.search(_SHAPES[kind], key), "the kind itself, and not another one, recognises it"
        assert redact({"ORDINARY": key}) == (("ORDINARY", REDACTED),)
        shown = redact_text(f"ValueError: cannot use {key}")
        assert shown.startswith("ValueError: cannot use ")
        assert key not in shown
        assert REDACTED in shown
    for other in NO_KEYS[kind]:
        assert redact({"ORDINARY": other}) == (("ORDINARY", other),)
        assert redact_text(f"see {other} here") == f"see {other} here"


def test_OB10_the_whole_of_a_private_key_leaves_a_text() -> None:
    text = "before\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\nIIr\n-----END EC PRIVATE KEY-----\nbehind"
    assert redact_text(text) == f"before\n{REDACTED}\nbehind"


@pytest.mark.parametrize(
    "value",
    [
        "5f4dcc3b5aa765d61d8327deb882cf99",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "9b2c4e1fA7d3X0pQ8sZk",
        "mongodb+srv://cluster/?id=9b2c4e1fA7d3X0pQ8sZk",
        "q8zk3v9x2m7p1w5n4b6c8d",
        "key-3ax6xnjp29jd6fds4gc373sgvjxteol0",
        "https://example.org/hooks/9b2c4e1fA7d3X0pQ8sZk9",
        "dGhpcyBpcyBhIHNlY3JldCBrZXkgMTIzNDU2Nzg5MA==",
        "first;9b2c4e1fA7d3X0pQ8sZk;last",
    ],
)
def test_OB10_a_long_random_word_is_a_secret(value: str) -> None:
    shown = redact_value(value)
    assert REDACTED in shown
    assert "9b2c4e1f" not in shown


@pytest.mark.parametrize(
    "value",
    [
        "/usr/local/bin:/usr/bin:/home/anna/.local/share/gems2/bin",
        "/nix/store/0c9lmvxbd3l1hgw8d0x2gmqmrd9i7xkx-python3-3.11.7/bin",
        "xterm-256color",
        "en_US.UTF-8",
        "my_application_2024_11_30_release_candidate",
        "org.apache.commons.lang3.StringUtilsForEverybody",
        "torch-2.1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "20251123074301204123456789",
        "550e8400-e29b-41d4-a716-446655440000",
        "config.settings.ProductionSettings2024ForShop",
        "rs=0:di=01;34:ln=01;36:mh=00:pi=40;33:so=01;35:do=01;35:bd=40;33;01",
        "unix:path=/run/user/1000/bus",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1b1",
        "internationalization_of_everything",
    ],
)
def test_OB10_what_people_write_is_none(value: str) -> None:
    assert redact_value(value) == value


ALPHABETS = {
    "base 62": string.ascii_letters + string.digits,
    "base 36": string.ascii_lowercase + string.digits,
    "hexadecimal": "0123456789abcdef",
}


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_OB10_of_random_keys_nearly_all_are_recognised(alphabet: str) -> None:
    """32 characters, as keys have; chance is seeded, so the test is one test."""
    chance = random.Random(10)
    keys = ["".join(chance.choices(ALPHABETS[alphabet], k=32)) for _ in range(2000)]
    assert sum(map(is_random, keys)) > 0.95 * len(keys)


def test_OB10_the_tokens_that_programs_make() -> None:
    made = [secrets.token_hex(32) for _ in range(50)]
    assert sum(REDACTED in redact_value(token) for token in made) >= 49


def test_OB10_words_of_code_stay_in_a_text() -> None:
    line = "    token = next(lexer)  # password: see postgres://shop:hunter2@db/x"
    assert redact_text(line) == f"    token = next(lexer)  # password: see postgres://{REDACTED}@db/x"
