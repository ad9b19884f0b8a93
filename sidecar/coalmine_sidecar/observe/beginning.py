"""The first bytes of an answer that is streamed, for the payload log."""

from __future__ import annotations


class Room:
    """Bytes that may be kept at a time: `used` of `limit`."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        """Whether there is room for so many more; then they are counted."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        self.used -= size


class Beginning:
    """Of one answer: `data` are its first bytes, at most `most` and as many as there is room for; `size` counts all."""

    __slots__ = ("_most", "_room", "content_type", "data", "size")

    def __init__(self, content_type: bytes, most: int, room: Room) -> None:
        self.content_type = content_type
        self.data = bytearray()
        self.size = 0
        self._most = most
        self._room = room

    def add(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self.size += len(piece)
            part = piece[: self._most - len(self.data)]
            if part and self._room.take(len(part)):
                self.data += part
            else:
                # What comes behind a gap is not a beginning's.
                self._most = len(self.data)

    def drop(self) -> None:
        self._room.give(len(self.data))
        self._most = 0
        self.data = bytearray()
