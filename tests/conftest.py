"""For all tests."""

import asyncio

# On Python 3.11 to 3.13 pytest-asyncio asks for the present event loop before it sets its own: unless one was set,
# that makes one which nobody closes, and its ResourceWarning hits whatever test the collector runs in.
asyncio.set_event_loop(None)
