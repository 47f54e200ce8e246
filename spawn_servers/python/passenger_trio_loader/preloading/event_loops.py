"""Event loops that the application has made but that do not run: asyncio's, and the hubs of gevent and eventlet.

They are no hazards, because ``after_fork`` recreates them in each process.
"""

import sys


def green_hubs():
    """Epoll descriptors of the hubs of gevent and eventlet that can be recreated."""
    try:
        hubs = sys.modules.get("eventlet.hubs")
        hub = getattr(getattr(hubs, "_threadlocal", None), "hub", None)
        # A hub with timers or listeners cannot be recreated: the new one would not know them.
        if hub is not None and not (hub.timers or hub.next_timers or any(hub.listeners.values())):
            yield hub.poll.fileno()
    except Exception:
        pass
    try:
        hub = gevent_hub()
        if hub is not None:
            yield hub.loop.fileno()
    except Exception:
        pass


def gevent_hub():
    local = sys.modules.get("gevent._hub_local")
    return local.get_hub_if_exists() if local is not None else None


def idle_loop():
    """The application's asyncio loop, if it is of asyncio's own classes and watches no descriptor. None: there is none."""
    events = sys.modules.get("asyncio.events")
    if events is None:
        return None
    try:
        policy = events._event_loop_policy
        loop = policy._local._loop
        if loop is None or loop.is_closed() or loop.is_running() or loop._internal_fds != 1:
            return None
        if len(loop._selector.get_map()) != 1 or not type(loop).__module__.startswith("asyncio."):
            return None
        return loop
    except (AttributeError, RuntimeError, ValueError, TypeError):
        return None
