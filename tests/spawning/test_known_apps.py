"""OP5: what is known of applications that were looked at before is found by their options."""

from __future__ import annotations

import attrs

from passenger_trio.options import AppOptions
from passenger_trio.spawning.detect import DetectedApp
from passenger_trio.spawning.known_apps import KnownApps

FOUND, OTHER = (DetectedApp("wsgi", root, "", "", "", False, "python", "", "") for root in ("/srv/a", "/srv/b"))


def test_OP5_an_application_is_known_by_its_options_only() -> None:
    app = AppOptions(root="/srv/a", name="a", min_instances=0)
    known = KnownApps([(app, FOUND)])
    assert known.get(app) is FOUND
    assert known.get(attrs.evolve(app)) is FOUND, "another object with equal options"
    assert known.get(attrs.evolve(app, app_type="asgi")) is None, "what it has may be another thing then"
    assert known.get(attrs.evolve(app, name="b")) is None


def test_OP5_what_was_found_last_counts() -> None:
    app = AppOptions(root="/srv/a", name="a")
    same = attrs.evolve(app)
    known, later = KnownApps([(app, FOUND)]), KnownApps([(same, OTHER)])
    known.add_all(later)
    assert (known.get(same), known.get(attrs.evolve(app))) == (OTHER, OTHER)
