"""The payload log: a sampled share of requests and answers as CloudEvents, to an HTTP sink or to files."""

from .counters import payload_metrics as payload_metrics
from .event import Body as Body
from .event import Exchange as Exchange
from .logger import PayloadLogger as PayloadLogger
from .switch import PayloadLogs as PayloadLogs
