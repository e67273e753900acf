"""What runs below the HTTP API: the engine in use, the thread that searches, connections, ports and metrics."""

from service.serving.connection import server_config
from service.serving.live import THUMBNAIL_BYTES, Live, LiveEngine
from service.serving.metrics import Metrics
from service.serving.ports import PortTaken, address, listening
from service.serving.worker import PREPARED_AT_ONCE, SLOW_AT_ONCE, Shared, Unready, Worker

__all__ = [
    "PREPARED_AT_ONCE",
    "SLOW_AT_ONCE",
    "THUMBNAIL_BYTES",
    "Live",
    "LiveEngine",
    "Metrics",
    "PortTaken",
    "Shared",
    "Unready",
    "Worker",
    "address",
    "listening",
    "server_config",
]
