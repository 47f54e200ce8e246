"""For tests that run pytest in a directory of their own: without the plugins of packages of examples, which take long to be imported, and in the order in which
tests are written."""

from __future__ import annotations

WITHOUT = tuple(
    word for name in ("cacheprovider", "randomly", "schemathesis", "faker") for word in ("-p", f"no:{name}")
)
