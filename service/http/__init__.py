"""The HTTP API: application, routes, and the page's files."""

from service.http.answers import told
from service.http.app import create_app
from service.http.logs import configure

__all__ = [
    "configure",
    "create_app",
    "told",
]
