"""`make demo`: a real model served, replaced, and guarded on this machine, in about a minute and a half.

Starts `coalmine run` on a copy of breast-cancer.yaml, sends it held-out rows, edits the version in the manifest, and
checks what comes of it. Exit status 0 only if every line of the story came true; nothing is left running.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Run as a script, Python looks for modules beside it, not in the project's folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples import train
from examples.load import Load
from examples.show.coalmine import Coalmine, free_port
from examples.show.playing import console, in_folder, options, play
from examples.show.screen import Screen


def _main(arguments: argparse.Namespace, folder: Path) -> int:
    coalmine = Coalmine(folder, arguments.port or free_port())
    rows, labels = train.held_out()
    load = Load(coalmine.infer, rows, labels, rate=arguments.rate, timeout=10.0)
    screen = Screen(console(plain=arguments.plain))
    screen.say(f"everything is in {folder}, requests go to port {coalmine.port}")
    return play(coalmine, load, screen, arguments.json)


def main() -> None:
    parser = options("Serve, canary and roll back a real model on this machine.")
    parser.add_argument("--port", type=int, default=0, help="where requests go (default: a free port)")
    arguments = parser.parse_args()
    raise SystemExit(in_folder(lambda folder: _main(arguments, folder), keep=arguments.keep))


if __name__ == "__main__":
    main()
