"""Runs a server: keeps the newest engine open, queues searches, runs builds, and listens on ports."""

from sketch_search.service.serving.builder import Builder, folders_in
from sketch_search.service.serving.connection import PortTaken, address, listening, server_config
from sketch_search.service.serving.live import Live, Metrics
from sketch_search.service.serving.on_ray import deployed
from sketch_search.service.serving.worker import Worker
