"""The local platform and the runtime in a process of their own, to be killed: MANIFEST STATE PORT."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from coalmine_operator.platforms.local import LocalPlatform
from coalmine_operator.runtime import Runtime


async def main() -> None:
    platform = LocalPlatform(Path(sys.argv[1]), Path(sys.argv[2]), port=int(sys.argv[3]))
    await platform.start()
    Runtime(platform).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    asyncio.run(main())
