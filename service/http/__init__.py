"""Serves the HTTP API: its application, routes, middleware and answers to errors."""

from sketch_search.service.http.app import create_app
from sketch_search.service.http.middleware import as_json, configure_logging
