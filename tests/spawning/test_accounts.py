"""KE2: where no descriptor is left, no user is said not to exist, and none loses its groups."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import errno, os, resource
from passenger_trio.spawning.accounts import account_of, find_account, find_group, groups_of

root = find_account("root")
looks = [lambda: find_account("root"), lambda: account_of(0), lambda: find_group("root"), lambda: groups_of(root, 0)]
before = [look() for look in looks]
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
taken = []
while True:
    try:
        taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        break
said = []
for look in looks:
    try:
        said.append(look())
    except OSError as error:
        said.append(errno.errorcode[error.errno])
for descriptor in taken:
    os.close(descriptor)
assert said == ["EMFILE"] * 4, said
assert [look() for look in looks] == before
assert find_account("nobody-has-this-name") is None
"""


def test_KE2_users_are_not_looked_up_without_a_descriptor() -> None:
    subprocess.run([sys.executable, "-c", _PROGRAM], check=True)
