"""The load as lines, for who reads it from afar: each request that ended as JSON, and the labels at the end.

    kubectl exec --stdin clients -- python3 /opt/model/examples/clients.py --url http://fraud --model fraud

Sends until its standard input ends. A line is a `load.Record`; the last one is a `Tally`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

# As in model_server.py: a script that must find its package, and small requests.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples.load import Load
from examples.train import held_out

#: Seconds between two looks at what has ended.
EVERY = 0.1


@dataclass
class Tally:
    """`right`, `wrong`: answers by version, among the labels that arrived. `held_back`: requests not sent."""

    right: dict[str, int]
    wrong: dict[str, int]
    held_back: int


def tell_ended(load: Load) -> None:
    """Move what ended from the load to standard output."""
    ended = [record for record in load.records if record.done]
    load.records[:] = [record for record in load.records if not record.done]
    for record in ended:
        print(json.dumps(asdict(record)))
    sys.stdout.flush()


async def main() -> None:
    parser = argparse.ArgumentParser(description="Send held-out rows to a model until standard input ends.")
    parser.add_argument("--url", required=True, help="scheme, host and port")
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second (default: %(default)s)")
    arguments = parser.parse_args()
    rows, labels = held_out()
    url = f"{arguments.url}/v2/models/{arguments.model}/infer"
    load = Load(url, rows, labels, rate=arguments.rate, timeout=10.0)
    sending = asyncio.create_task(load.run())
    wanted = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    while not wanted.done() and not sending.done():
        tell_ended(load)
        await asyncio.sleep(EVERY)
    load.stop()
    await sending
    tell_ended(load)
    print(json.dumps(asdict(Tally(dict(load.labels.right), dict(load.labels.wrong), load.held_back))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
