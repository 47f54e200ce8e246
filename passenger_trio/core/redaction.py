"""Replaces the secrets in an environment or a text, so that an error page may show it (OB10).

There are four filters for a variable, because each alone has gaps:

=====================  ==================================================================================
by name                ``SECRET_KEY``, ``DB_PASSWORD``
by a part of the value the user and password of a URL, ``password=...`` in a connection string
by a known shape       private keys, JSON web tokens, keys with the prefix of a service (``_SHAPES``)
by randomness          a long word whose characters change between kinds as random ones do (``is_random``)
=====================  ==================================================================================

In doubt a value is redacted: a reader who misses a harmless value (a commit's hash) can look it up, and a password that was
shown must be changed. A redacted value does not reveal its length.

In a text (a traceback, an output) only known shapes and passwords in URLs are redacted: the reader needs its lines of
code, and ``token = next(lexer)`` is one.

This module is pure, and linear in the length of the values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from passenger_trio.late_patterns import late

__all__ = ["REDACTED", "is_random", "is_secret_name", "redact", "redact_text", "redact_value"]

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
_ASSIGNMENT = late(
    r"""(?ix)
    (   (?: password | passwd | passphrase | pwd | secret | token | credential
          | api[_-]?key | access[_-]?key | account[_-]?key )
        [\w-]{0,20} ["']? \s{0,3} [=:] \s{0,3}
    )
    (?: "[^"]*" | '[^']*' | [^\s&;,"'{}]+ )
    """
)
_SHAPES = {
    "private key": r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:(?!-----END)[\s\S])*(?:-----END [A-Z ]{0,60}-----)?",
    "JSON web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}(?:\.[\w-]*)?",
    "GitHub": r"\b(?:gh[pousr]_|github_pat_)\w{12,}",
    "GitLab": r"\bgl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|oas)-[\w-]{12,}",
    "Slack": r"\b(?:xox[abeprs]|xapp)-[\w-]{10,}",
    "Slack webhook": r"hooks\.slack\.com/(?:services|workflows)/[\w/]{12,}",
    "Stripe": r"\b(?:[sr]k_(?:live|test)_|whsec_)\w{12,}",
    "Anthropic, OpenAI and alike": r"\bsk-(?:[a-z]{2,10}\d{0,2}-)*[\w-]{16,}",
    "AWS": r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}",
    "Google": r"\bAIza[\w-]{30,}|\bya29\.[\w-]{12,}|\bGOCSPX-[\w-]{12,}",
    "SendGrid": r"\bSG\.[\w-]{12,}\.[\w-]{12,}",
    "Shopify": r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{12,}",
    "DigitalOcean": r"\bdo[opr]_v1_[0-9a-f]{12,}",
    "npm, PyPI, RubyGems": r"\bnpm_[A-Za-z0-9]{20,}|\bpypi-[\w-]{16,}|\brubygems_[0-9a-f]{12,}",
    "Hugging Face": r"\bhf_[A-Za-z0-9]{16,}",
    "Vault": r"\bhv[sbr]\.[\w-]{16,}",
    "age": r"\bAGE-SECRET-KEY-1[A-Z0-9]{12,}",
    "Sentry, with its secret": r"\bsntr[yu]s?_[\w=-]{16,}",
}
"""Kind of secret -> the pattern of its text."""
_SHAPE = late("|".join(_SHAPES.values()))

_LONG_WORD = late(r"(?<!\w)\w{20,}={0,2}")
_BASE64 = late(r"(?<![\w+/.=-])[A-Za-z0-9+][A-Za-z0-9+/]{31,}={0,2}(?![\w/])")
_KINDS = late(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+|[^a-zA-Z0-9]+")
_CHANGES = 0.2
"""A random word changes at least so often per character between letters, capitals and digits: 0.47 times in hexadecimal
digits, 0.40 in base 36, 0.44 in base 62. Names, versions and dates change less than half as often. (A capital and the small
letters behind it are one run: ``CamelCase`` changes once.)
"""
_DIFFERENT = 8
"""A random word has at least so many different characters."""


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
    """The value of a variable without its visible secrets. A value that contains a key of a known shape is replaced as a whole."""
    if _SHAPE.search(value):
        return REDACTED
    if "://" in value:
        value = _NOT_SPACE.sub(_without_userinfo, value)
    value = _ASSIGNMENT.sub(rf"\1{REDACTED}", value)
    return _LONG_WORD.sub(_unless_random, _BASE64.sub(_unless_random, value))


def redact_text(text: str) -> str:
    """A text of an application, such as a traceback or its output, without keys of known shapes and passwords in URLs."""
    text = _SHAPE.sub(REDACTED, text)
    return _NOT_SPACE.sub(_without_userinfo, text) if "://" in text else text


def is_random(word: str) -> bool:
    """Whether a word of 20 characters or more looks random, like a key or a hash."""
    word = word.replace("_", "").replace("/", "")
    if not any(char.isdigit() for char in word) or len(set(word)) < _DIFFERENT:
        return False
    return (len(_KINDS.findall(word)) - 1) / len(word) >= _CHANGES


def _unless_random(match: re.Match[str]) -> str:
    """Redact a random word, unless it is a part of a path in the file system: that is a name, and no secret."""
    value, start = match.string, match.start()
    in_path = start > 0 and value[start - 1] == "/" and "://" not in value
    return match[0] if in_path or not is_random(match[0]) else REDACTED


def _without_userinfo(match: re.Match[str]) -> str:
    """Userinfo ends at the last ``@``: passwords are often written unescaped, with ``@`` and ``/``."""
    word = match[0]
    scheme, separator, rest = word.partition("://")
    _, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{REDACTED}@{host}" if at else word
