"""Addresses that may be told, lines that are not repeated, and tasks that end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from coalmine_sidecar.outward import APART, Health, end, http_url, shown


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://a", "http://a"),
        ("https://user:s3cret@a:1/b?token=s3cret#s3cret", "https://a:1/b"),
        ("http://user@[::1]:80/", "http://[::1]/"),
    ],
)
def test_what_is_told_of_a_url_has_no_secret(url: str, told: str):
    assert shown(http_url(url)) == told


@pytest.mark.parametrize(
    "text", ["", "a", "http://", "http:///a", "ftp://a", "http://a:b", "http://a:99999", "http://a\n"]
)
def test_what_is_no_url_is_refused(text: str):
    with pytest.raises(ValueError, match=r"^no URL: write http://HOST:PORT/PATH or https://HOST/PATH$"):
        http_url(text)


def test_one_line_for_each_change_and_no_two_within_a_while(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    now = 100.0
    health = Health("sink", logging.getLogger("test"), clock=lambda: now)
    health.say("")
    health.say("away")
    health.say("still away")
    health.say("")
    assert caplog.messages == ["sink: away"]
    now += APART
    health.say("")
    health.say("")
    health.say("away again")
    assert caplog.messages == ["sink: away", "sink: takes what it is sent again"]
    now += APART
    health.say("away again")
    assert caplog.messages[2:] == ["sink: away again"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]


async def test_a_task_that_misses_its_end_is_told_again():
    missed = 0

    async def stubborn() -> None:
        nonlocal missed
        while missed < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                missed += 1
        await asyncio.sleep(60)

    async def broken() -> None:
        raise ZeroDivisionError

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(broken())]
    await asyncio.sleep(0)
    await end(tasks)
    assert missed == 2
    assert [task.done() for task in tasks] == [True, True]
    await end([])
