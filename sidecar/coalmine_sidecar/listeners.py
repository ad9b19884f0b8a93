"""Who listens on a port of this machine or pod, without asking: containers of a pod share their network.

A listening socket has a number of its own. A server that ended and came back, however fast, has another one; workers
that come and go behind a socket they inherited change nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_TABLES: Final = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_LISTEN: Final = b"0A"


def listeners(port: int, tables: tuple[Path, ...] = _TABLES) -> frozenset[int]:
    """Inodes of the sockets that listen on a TCP port; none also where the system keeps no such table."""
    wanted = b":%04X" % port
    found = set()
    for table in tables:
        try:
            with table.open("rb") as lines:
                next(lines, None)
                for line in lines:
                    # sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
                    fields = line.split(None, 10)
                    if len(fields) < 10 or fields[3] != _LISTEN:
                        break  # the kernel lists those that listen first, and there may be thousands of the others
                    if fields[1].endswith(wanted):
                        found.add(int(fields[9]))
        except OSError:
            continue
    return frozenset(found)
