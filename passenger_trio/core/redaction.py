"""An environment -> the same environment with its secrets redacted, fit for an error page.

There are three filters, because each alone has gaps: names of secrets (``SECRET_KEY``,
``DB_PASSWORD``); parts of values (the user and password of a URL, ``password=...`` in a connection
string); values that look like secrets (private keys, tokens with a known prefix). In doubt a value is
redacted: a harmless value that is missing costs a look into the shell, a password that is shown costs
the password. A redacted value does not reveal its length.

This module is pure, and linear in the length of the values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["REDACTED", "is_secret_name", "redact", "redact_value"]

REDACTED = "[redacted]"

_ANYWHERE = (
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "TOKEN",
    "CREDENTIAL",
    "PRIVATE",
    "APIKEY",
    "WEBHOOK",
    "COOKIE",
)
"""A name that contains one of these is secret."""

_WORDS = frozenset(
    {
        "KEY",
        "KEYS",
        "PASS",
        "PWD",
        "PW",
        "AUTH",
        "AUTHORIZATION",
        "DSN",
        "SALT",
        "SIGNATURE",
        "CONNSTR",
        "PIN",
        "PAT",
        "SK",
        "USERPASS",
        "OTP",
    }
)
"""A name that contains one of these as a separate word (``_KEY``) is secret."""

_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_APPLICATION_", "VCAP_SERVICES", "MYSQL_PWD", "PGPASS")
_HARMLESS = frozenset({"PWD", "OLDPWD", "SSH_AUTH_SOCK", "AWS_REGION", "AWS_DEFAULT_REGION"})

_WORD = re.compile(r"[A-Z0-9]+")
_NOT_SPACE = re.compile(r"\S+")
_ASSIGNMENT = re.compile(
    r"""(?ix)
    (   (?: password | passwd | passphrase | pwd | secret | token | credential
          | api[_-]?key | access[_-]?key | account[_-]?key )
        [\w-]{0,20} ["']? \s{0,3} [=:] \s{0,3}
    )
    (?: "[^"]*" | '[^']*' | [^\s&;,"'{}]+ )
    """
)
_LOOKS_SECRET = re.compile(
    r"""(?x)
      -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----
    | \b eyJ[\w-]{10,} \. eyJ[\w-]{10,}  # a JSON web token
    | \b (?: gh[pousr]_ | github_pat_ | glpat- | xox[abprs]- | sk_live_ | rk_live_ | sk-ant- | AKIA | ASIA )
      [\w-]{12,}
    """
)


def redact(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The variables as pairs, sorted by name, with every secret replaced by ``REDACTED``."""
    return tuple(
        (name, REDACTED if is_secret_name(name) and value else redact_value(value))
        for name, value in sorted(environment.items())
    )


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name counts as a secret whatever its value."""
    name = name.upper()
    if name in _HARMLESS:
        return False
    if any(part in name for part in _ANYWHERE) or name.startswith(_PREFIXES):
        return True
    return name.endswith("KEY") or not _WORDS.isdisjoint(_WORD.findall(name))


def redact_value(value: str) -> str:
    """A value without its visible secrets: userinfo of URLs, ``password=...``, and keys and tokens of known forms."""
    if _LOOKS_SECRET.search(value):
        return REDACTED
    if "://" in value:
        value = _NOT_SPACE.sub(_without_userinfo, value)
    return _ASSIGNMENT.sub(rf"\1{REDACTED}", value)


def _without_userinfo(match: re.Match[str]) -> str:
    """Userinfo ends at the last ``@``: passwords are often written unescaped, with ``@`` and ``/``."""
    word = match[0]
    scheme, separator, rest = word.partition("://")
    _, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{REDACTED}@{host}" if at else word
