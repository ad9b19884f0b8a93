"""Orders by annotation: given to the runtime as soon as they are seen, taken away when they were obeyed or refused."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from .platforms.kubernetes import ApiError, KubernetesPlatform
from .platforms.kubernetes.annotations import Annotated
from .runtime import NotTaken, OrderRefused, Runtime, SubmitError

logger = logging.getLogger("coalmine")

#: Seconds before an order that could not be made durable, or whose annotation could not be removed, is tried again.
AGAIN: Final = 2.0
MAX_AGAIN: Final = 60.0


class OrderDesk:
    """One task for each model deployment with orders; they are given one after the other."""

    def __init__(self, platform: KubernetesPlatform, runtime: Runtime) -> None:
        self._platform = platform
        self._runtime = runtime
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        self._platform.on_change(self._look)

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _look(self, key: str) -> None:
        if key not in self._tasks and self._platform.orders(key):
            self._tasks[key] = asyncio.create_task(self._work(key), name=f"orders {key}")

    async def _work(self, key: str) -> None:
        try:
            await self._give_all(key)
        finally:
            # Not by a callback of the task, which runs a turn later: an order seen in between would find us here still.
            del self._tasks[key]

    async def _give_all(self, key: str) -> None:
        pause = AGAIN
        while orders := self._platform.orders(key):
            try:
                await self._give(key, orders[0])
                pause = AGAIN
            except (NotTaken, ApiError) as error:
                logger.warning("%s: order %s: %s; again in %g s", key, orders[0].order.verb, error, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, MAX_AGAIN)
            except SubmitError:
                return  # the model deployment is gone

    async def _give(self, key: str, one: Annotated) -> None:
        try:
            await self._runtime.submit_order(key, one.order)
        except OrderRefused as error:
            logger.info("%s: order %s by %s refused: %s", key, one.order.verb, one.order.actor or "somebody", error)
        await self._platform.forget_order(key, one)
