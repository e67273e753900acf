"""Serves the HTTP API: its application and routes, what every request passes through, and the answers to errors."""

from service.http.app import create_app
from service.http.logs import as_json, configure_logging
