"""Serves the HTTP API: its application, routes, middleware and answers to errors."""

from service.http.app import create_app
from service.http.logs import as_json, configure_logging
