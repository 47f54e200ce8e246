"""What the preloader puts right before it forks: connections that open again by themselves, and memory that is to be shared."""

import gc
import sys


def close_of_django(holdings):
    """Connections of databases and caches: each is opened where it is used."""
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


def dispose_of_sqlalchemy(holdings):
    """Connections that wait in the pools of engines. One that is in use by a session is not touched, and so found."""
    base = sys.modules.get("sqlalchemy.engine.base")
    if base is None or not holdings.has_sockets():
        return
    import gc

    for found in gc.get_objects():
        if type(found) is base.Engine and found.dialect.name != "sqlite":  # in memory, a connection is the database
            found.dispose()


def close_of_logging(holdings):
    """Handlers that log to a stream: they connect again with the next record."""
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


def share_memory():
    """Before the first fork: what is garbage goes, and what is not is never looked at again by the collector.

    To look at an object is to write to it, and to write to it is to copy its page.
    """
    gc.collect()
    if hasattr(gc, "freeze"):  # not in PyPy, whose objects carry no counts
        gc.freeze()
