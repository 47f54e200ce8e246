"""What a preloader does before its first fork: close connections that open again by themselves, and prepare shared memory."""

import gc
import sys

FIRST_USES = (("werkzeug", "encodings.idna"), ("anyio", "anyio._backends._asyncio"))
"""(library, what it imports with its first request): Flask for the name of the host, FastAPI for a function that is not async."""


def close_django_connections(held):
    """Close Django's connections to databases and caches. Each process opens its own when it uses them."""
    db = sys.modules.get("django.db")
    conf = sys.modules.get("django.conf")
    if db is None or conf is None or not conf.settings.configured:
        return
    for alias in db.connections:
        connection = getattr(db.connections._connections, alias, None)
        if connection is not None:
            connection.close()
            close_pool = getattr(connection, "close_pool", None)  # Django 5.1: psycopg's, which has threads
            if close_pool is not None:
                close_pool()
    cache = sys.modules.get("django.core.cache")
    if cache is not None and hasattr(cache, "close_caches"):
        cache.close_caches()


def dispose_sqlalchemy_pools(held):
    """Close the idle connections in the pools of SQLAlchemy. One that a session uses stays open, and is a hazard."""
    base = sys.modules.get("sqlalchemy.engine.base")
    if base is None or not held.has_sockets():
        return
    import gc

    for found in gc.get_objects():
        if type(found) is base.Engine and found.dialect.name != "sqlite":  # in memory, a connection is the database
            found.dispose()


def close_logging_sockets(held):
    """Close the sockets of ``logging``'s handlers. A handler connects again with its next record."""
    handlers = sys.modules.get("logging.handlers")
    if handlers is None:
        return
    for reference in list(sys.modules["logging"]._handlerList):
        handler = reference() if callable(reference) else reference
        if isinstance(handler, handlers.SocketHandler) and handler.sock is not None:
            handler.acquire()
            try:
                handler.sock.close()
                handler.sock = None
            finally:
                handler.release()


def import_first_uses():
    """Import what each worker would import with its first request, for itself: 3 ms with Flask, 30 ms with FastAPI."""
    for library, name in FIRST_USES:
        if library in sys.modules and name not in sys.modules:
            try:
                __import__(name)
            except Exception:
                pass  # The library has another version. The workers do without.


def share_memory():
    """Collect garbage, then hide all objects from the collector.

    The collector writes to each object that it visits, and a write in a worker copies the shared page.
    """
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy has none: its objects carry no counts.
        gc.freeze()
