"""What a person sees of a run: how far it is, and its figures at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .cases import CASES, HALF, HALF_TITLE
from .results import AT_LEAST, AT_MOST, Results, missed

_TITLES = {case.name: case.title for case in CASES} | {HALF: HALF_TITLE}


class Show:
    """On a terminal one line that changes; elsewhere a line for each step."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = 150

    @contextmanager
    def progress(self) -> Iterator[None]:
        if not self.console.is_terminal:
            yield
            return
        with self.console.status("starting") as self._status:
            yield

    def tell(self, text: str) -> None:
        if self.console.is_terminal:
            self._status.update(escape(text))
        else:
            self.console.print(escape(text))

    def results(self, results: Results) -> None:
        for case in results.loads:
            table = self._table(
                _TITLES[case],
                "requests/s",
                "p50 µs",
                "p99 µs",
                "p99.9 µs",
                "CPU µs/request",
                "requests/CPU s",
                "RSS MB",
            )
            for peer, f in results.load(case).items():
                proxy = (f"{f.cpu_us:.1f}", f"{1e6 / f.cpu_us:,.0f}", f"{f.rss_mb:.0f}") if f.cpu_us else ("", "", "")
                micros = (f"{value:,.0f}" for value in (f.rps, f.p50_us, f.p99_us, f.p999_us))
                table.add_row(peer, *micros, *proxy)
            self.console.print(table)
        if streamed := results.streamed():
            table = self._table(
                "server-sent events: 64 streams of 200 tokens, 50 a second each",
                "delay p50 µs", "p99 µs", "max µs", "coalesced", "CPU µs/token",
            )  # fmt: skip
            for peer, s in streamed.items():
                delays = (f"{value:,.0f}" for value in (s.delay_p50_us, s.delay_p99_us, s.delay_max_us, s.coalesced))
                table.add_row(peer, *delays, f"{s.cpu_us:.1f}" if s.cpu_us else "")
            self.console.print(table)
        if results.memory:
            table = self._table("memory", "RSS idle MB", "kB for each of 1,000 idle connections")
            for peer, held in results.memory.items():
                table.add_row(peer, f"{held.idle_mb:.1f}", f"{held.idle_connection_kb:.1f}")
            self.console.print(table)
        if results.budget:
            table = self._table("budget for observation", "requests/s", "CPU µs/request", "answers not read")
            for case, pair in results.budget.items():
                for name, seen in zip(("usual", "tiny"), pair, strict=True):
                    table.add_row(f"{case}, {name}", f"{seen.rps:,.0f}", f"{seen.cpu_us:.1f}", f"{seen.skipped:.1%}")
            self.console.print(table)
        if seen := results.monitored:
            scrape = f"{seen.series} series, {seen.scrape_kb:.0f} kB, {seen.scrape_ms:.1f} ms of CPU"
            title = f"20 features and 2 outputs of every request; /metrics: {scrape}"
            table = self._table(title, "requests/s", "CPU µs/request", "not read")
            for name, one in (("not monitored", seen.plain), ("monitored", seen.monitored)):
                table.add_row(name, f"{one.rps:,.0f}", f"{one.cpu_us:.1f}", f"{one.skipped:.1%}")
            self.console.print(table)
        if results.soaked:
            looks = results.soaked.rss_mb
            series = ", ".join(f"{rss:.1f}" for rss in looks[:: max(1, len(looks) // 12)])
            self.console.print(f"\nsoak of {results.soaked.seconds:.0f} s, RSS MB over time: {series}")
        self._ratios(results.ratios())

    def _ratios(self, ratios: dict[str, float]) -> None:
        table = self._table("ratios", "here", "goal")
        for name, value in ratios.items():
            goal = f">= {AT_LEAST[name]:g}" if name in AT_LEAST else f"<= {AT_MOST[name]:g}" if name in AT_MOST else ""
            table.add_row(name, f"{value:,.3f}", goal)
        self.console.print(table)
        failed = missed(ratios)
        for text in failed:
            self.console.print(f"missed: {text}")
        if not failed:
            self.console.print("every goal of what was measured is reached")

    def _table(self, title: str, *columns: str) -> Table:
        table = Table(title=f"\n{title}", title_justify="left", box=None, title_style="bold", pad_edge=False)
        table.add_column("", justify="left")
        for column in columns:
            table.add_column(column, justify="right")
        return table
