"""Makes the ``AppSpec`` of each application, with the place of its sockets and the user that it runs as.

If every program runs as the server's own user, all sockets are in the instance directory, which other users cannot
enter. If root may start programs as other users, ``system.app_dirs`` has a directory that those users can enter."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence

from passenger_trio.core.app_cgroup import UNLIMITED_FILES
from passenger_trio.errors import EnvironmentUnfit, ReloadRefused
from passenger_trio.options import AppOptions, Config
from passenger_trio.spawning.accounts import remembering
from passenger_trio.spawning.app_environment import Surroundings
from passenger_trio.spawning.app_spec import AppSpec, make_app_spec
from passenger_trio.spawning.detect import DetectedApp
from passenger_trio.spawning.run_as import log_choice, log_more, run_as
from passenger_trio.system.app_cgroups import AppCgroups
from passenger_trio.system.app_dirs import AppDirs
from passenger_trio.system.cgroups import OwnCgroup

__all__ = ["AppPlaces"]

_TOLD = 20


class AppPlaces:
    """Makes the specs of one instance's applications."""

    def __init__(
        self,
        config: Config,
        environment: Mapping[str, str],
        instance_dir: str,
        spawn_socket: str,
        *,
        is_embedded: bool,
        own_cgroup: OwnCgroup | None = None,
    ) -> None:
        """:param own_cgroup: the server's cgroup; None: it has none.
        :raises EnvironmentUnfit: no directory can be made for sockets of other users."""
        self._server_user = config.server.user
        self._surroundings = Surroundings(environment)
        self._instance_dir = instance_dir
        self._is_embedded = is_embedded
        self._made = 0
        self.cgroups: AppCgroups = AppCgroups(own_cgroup, UNLIMITED_FILES)
        self._dirs: AppDirs | None = None
        self.spawn_socket: str = spawn_socket
        """The path of the spawn socket."""
        self.spawn_mode: int = 0o600
        """The mode of its file."""
        # A file of --apps-dir that comes later may ask for it, too.
        is_asked = bool(config.server.apps_dir) or any(app.user or app.group for app in config.apps)
        if os.geteuid() == 0 and (is_asked or not (self._server_user or is_embedded)):
            try:
                self._dirs = AppDirs.create(instance_dir)
            except OSError as error:
                raise EnvironmentUnfit(
                    f"no directory can be made for the sockets of applications that run as other users: {error}"
                ) from error
            self.spawn_socket, self.spawn_mode = self._dirs.spawn_socket, 0o666

    def close(self) -> None:
        """Remove the directory of other users' sockets, and the cgroups of the applications."""
        self.cgroups.close()
        if self._dirs is not None:
            self._dirs.close()

    def make_specs(self, apps: Sequence[AppOptions], found: Sequence[DetectedApp]) -> list[AppSpec]:
        """The specs of all applications of the start. Raises like ``make_spec``. Logs the users of the first ones, and how
        many more there are, because there may be thousands.
        """
        with remembering():
            specs = [self._make_spec(app, detected) for app, detected in zip(apps, found, strict=True)]
        for spec in specs[:_TOLD]:
            self._tell(spec)
        rest = Counter(
            (spec.run_as.account.shown, spec.run_as.because) for spec in specs[_TOLD:] if spec.run_as is not None
        )
        for (user, because), count in rest.items():
            log_more(count, user, because)
        return specs

    def make_spec(self, app: AppOptions, detected: DetectedApp) -> AppSpec:
        """The spec of one more application.

        :raises OptionError: its user or group does not exist, or the server may not become it.
        :raises ReloadRefused: the server was not started for applications of other users.
        :raises FileNotFoundError: the loader is missing from the installation.
        :raises EnvironmentUnfit: no directory can be made for its sockets.
        """
        spec = self._make_spec(app, detected)
        self._tell(spec)
        return spec

    def _tell(self, spec: AppSpec) -> None:
        log_choice(spec.key.name, spec.detected.root, spec.run_as)

    def _make_spec(self, app: AppOptions, detected: DetectedApp) -> AppSpec:
        # A preloader that runs already must run as the server's own user.
        choice = (
            None
            if app.preloader_socket
            else run_as(app, detected, server_user=self._server_user, is_embedded=self._is_embedded)
        )
        socket_dir = self._instance_dir
        if choice is not None and self._dirs is None:  # in a reload: nobody asked for it at the start
            raise ReloadRefused(f"{app.root} is to run as another user: start the server anew for that")
        if choice is not None and self._dirs is not None:
            try:
                socket_dir = self._dirs.add(self._made, choice.uid, choice.gid)
            except OSError as error:
                raise EnvironmentUnfit(f"no directory can be made for the sockets of {app.root}: {error}") from error
            self._made += 1
        spec = make_app_spec(app, detected, self._surroundings, socket_dir, choice)
        spec.cgroups = self.cgroups
        return spec
