"""``manage.py serve_trio [ADDRESS:PORT]``: this site, served by passenger_trio. May be copied into any Django project.

The command stays a plain synchronous program: the server has a thread of its own, the site has processes of its own.
Ctrl-C, ``passenger-trio stop`` and ``touch tmp/restart.txt`` do what they do to the command ``passenger-trio start``.
"""

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

import passenger_trio


class Command(BaseCommand):
    help = "Serve this site in several processes."

    def add_arguments(self, parser):
        parser.add_argument("address", nargs="?", default="127.0.0.1:8000")
        parser.add_argument("--processes", type=int, default=2)

    def handle(self, *, address, processes, **options):
        host, _, port = address.rpartition(":")
        config = passenger_trio.Config(
            server=passenger_trio.ServerOptions(address=host or "127.0.0.1", port=int(port)),
            pool=passenger_trio.PoolOptions(max_pool_size=processes),
            apps=(passenger_trio.AppOptions(root=str(settings.BASE_DIR), min_instances=processes),),
        )
        try:
            with passenger_trio.run_in_thread(config) as server:
                self.stdout.write(f"serving at {server.addresses[0]}; stop with Ctrl-C")
                try:
                    server.wait_stopping()
                except KeyboardInterrupt:
                    self.stdout.write("finishing the requests in flight")
        except passenger_trio.PassengerError as error:
            raise CommandError(str(error)) from None
