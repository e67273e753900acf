"""Runs a server: keeps the newest engine open, queues searches, runs builds, and listens on ports."""

from service.serving.builder import Builder, folders_in
from service.serving.connection import PortTaken, address, listening, server_config
from service.serving.live import Live
from service.serving.metrics import Metrics
from service.serving.on_ray import deployed
from service.serving.worker import PREPARED_AT_ONCE, SLOW_AT_ONCE, Worker
