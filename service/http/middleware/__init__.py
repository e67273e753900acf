"""What every request passes through."""

from service.http.middleware.access import Access, AccessLog, SearchNote
from service.http.middleware.headers import SecurityHeaders
from service.http.middleware.rate import RateLimited

__all__ = [
    "Access",
    "AccessLog",
    "RateLimited",
    "SearchNote",
    "SecurityHeaders",
]
