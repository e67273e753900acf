"""`sketch-search openapi`: the document that describes the HTTP API to programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.terminal import printable
from service.http import create_app
from service.settings import Settings

# The committed document. A test compares it with what the routes say.
OPENAPI = Path(__file__).parent.parent / "http" / "openapi.json"


def write_document(output: Path | None) -> int:
    """Write the OpenAPI document to ``output``; None: print it."""
    # The defaults, whatever the environment says.
    document: dict[str, Any] = create_app(Settings.model_construct()).openapi()
    text = json.dumps(document, indent=2)
    if output is None:
        print(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")
        print(printable(str(output)))
    return 0
