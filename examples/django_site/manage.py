"""A Django site with a command of its own that serves it, in place of ``runserver``.

python examples/django_site/manage.py serve_trio 127.0.0.1:8000 --processes 4
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    execute_from_command_line(sys.argv)
