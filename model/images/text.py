"""Picture files as text: data URLs and base64, as web pages and programs send them."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

_BASE64 = re.compile(rb"[A-Za-z0-9+/_\-\s]{16,}=*\s*")
_SPACES = re.compile(rb"\s+")
_FROM_URLS = bytes.maketrans(b"-_", b"+/")


def decode(data: bytes) -> bytes | None:
    """Decodes the file in a data URL, or in base64, whose beginning may do; None for other bytes."""
    if data[:5].lower() == b"data:":
        head, comma, body = data.partition(b",")
        if comma and head.lower().endswith(b";base64"):
            return _from_base64(unquote_to_bytes(body))
        return unquote_to_bytes(body) if comma else None
    return _from_base64(data) if _BASE64.fullmatch(data[:64]) else None


def _from_base64(text: bytes) -> bytes | None:
    text = _SPACES.sub(b"", text).translate(_FROM_URLS).rstrip(b"=")
    # One character more than whole bytes is no byte; it may be the beginning of one.
    text = text[: len(text) - (len(text) % 4 == 1)]
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None
