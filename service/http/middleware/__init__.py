"""What every request passes through."""

from service.http.middleware.access import Access, AccessLog, SearchNote
from service.http.middleware.head import HeadAsGet
from service.http.middleware.headers import SecurityHeaders
from service.http.middleware.query import LimitedQuery
from service.http.middleware.rate import RateLimited

__all__ = [
    "Access",
    "AccessLog",
    "HeadAsGet",
    "LimitedQuery",
    "RateLimited",
    "SearchNote",
    "SecurityHeaders",
]
