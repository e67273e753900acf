"""The HTTP API: the application with its routes, what every request passes through, and how errors are answered."""

from service.http.app import create_app
from service.http.logs import configure_logging
