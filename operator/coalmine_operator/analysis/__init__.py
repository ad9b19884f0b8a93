"""Counts in, verdicts with evidence out: pure, and valid however often one looks.

`evalue` and `baseline` hold the statistics, `effect` how large a difference is, `counts` the sums over pods and the
bins, `blind` which of these tell nothing, `rates`, `drift` and `shadow` what the presets make of an epoch, `verdicts`
what the engine calls. `reference*` makes baselines of rows, `performance*` measures models; only the command line needs
these.
"""

from .blind import BINS_CANNOT_TELL, recut
from .counts import freeze_bins, merge
from .question import Looked
from .verdicts import bank, baseline_bins, by_shadow, epoch_boundaries, judge, thresholds, worst

__all__ = [
    "BINS_CANNOT_TELL",
    "Looked",
    "bank",
    "baseline_bins",
    "by_shadow",
    "epoch_boundaries",
    "freeze_bins",
    "judge",
    "merge",
    "recut",
    "thresholds",
    "worst",
]
