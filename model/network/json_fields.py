"""Frozen dataclasses to and from the JSON text in a checkpoint's metadata."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from model.errors import ModelError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


def to_json(record: DataclassInstance) -> str:
    """One JSON object with a key for each field, sorted by name."""
    return json.dumps(dataclasses.asdict(record), sort_keys=True)


def from_json(kind: type[Record], text: str, title: str, gone: Mapping[str, object] | None = None) -> Record:
    """The record that ``to_json`` wrote; lists become tuples, missing fields take their defaults.

    Args:
        title: says in errors what is read.
        gone: fields that earlier versions wrote, each with the one value that still means what it meant.

    Raises:
        ModelError: a field is unknown or gone, a value has another type, or a field without a default is missing.
    """
    known = {field.name for field in dataclasses.fields(kind)}
    try:
        values: dict[str, Any] = json.loads(text)
        for name, harmless in (gone or {}).items():
            if values.pop(name, harmless) != harmless:
                raise ModelError(
                    f"the checkpoint was trained with {name}, which this version no longer has; train it again without"
                )
        unknown = sorted(set(values) - known)
        if unknown:
            raise ModelError(
                f"the checkpoint's {title} has fields this version does not know ({', '.join(unknown)}); "
                "install a newer sketch-search"
            )
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"the checkpoint's {title} cannot be read: {field}: {first['msg']}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"the checkpoint's {title} cannot be read: {error}") from error
