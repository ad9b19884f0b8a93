"""The command line. Its views are also the demo's, which is why the commands are imported only when they are wanted."""

from __future__ import annotations


def main() -> None:
    """The entry point `coalmine`."""
    from .main import main as begin

    begin()
