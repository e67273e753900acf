"""Checkpoints with random edits: of their bytes, of what their header says of tensors, and of their configuration."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from random import Random
from typing import Any

import torch

import model
from indexer import IndexRefused, build, open_index
from model.terminal import Refusal
from service.engine import Engine
from service.schemas import SearchQuery
from service.settings import Settings
from tests.fuzzing.campaign import Case
from tests.fuzzing.limited import Outcome
from tests.fuzzing.mutations import mutated, mutated_json
from tests.fuzzing.samples import Samples


class Checkpoints:
    """Such a file is refused in a sentence, or it works; and an index made with the valid one is refused to it."""

    name = "checkpoints"

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._valid = samples.weights.read_bytes()

    def make(self, chance: Random, folder: Path) -> Case:
        """The valid file with edits of one kind."""
        kind = chance.choice(("bytes", "header", "config", "config", "calibration"))
        data = mutated(self._valid, chance) if kind == "bytes" else self._edited(kind, chance)
        (folder / "fuzzed.safetensors").write_bytes(data)
        return Case(f"a checkpoint, edited: {kind}", use_checkpoint, (folder, self._samples))

    def judge(self, case: Case, outcome: Outcome) -> list[str]:
        """Refused, or used."""
        assert outcome.code == 0, f"ends with {outcome.code}"
        return [outcome.out.partition(":")[0].strip()]

    def _edited(self, kind: str, chance: Random) -> bytes:
        (length,) = struct.unpack_from("<Q", self._valid)
        header: dict[str, Any] = json.loads(self._valid[8 : 8 + length])
        if kind == "header":
            header = mutated_json(header, chance)
        else:
            described = header["__metadata__"]
            described[kind] = json.dumps(mutated_json(json.loads(described[kind]), chance))
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + self._valid[8 + length :]


def use_checkpoint(folder: Path, samples: Samples) -> int:
    """Load it, build an index with it, search that; say how far it came."""
    path = folder / "fuzzed.safetensors"
    try:
        matcher = model.load(path, dtype=torch.float32)
        same = matcher.checkpoint_sha256 == samples.checkpoint_sha256
        try:
            open_index(samples.index, matcher).close()
            assert same, "an index of another checkpoint is opened"
        except IndexRefused:
            assert not same, "the index is refused to its own checkpoint"
        build([samples.photos], folder / "index", matcher, embedder="ret")
        engine = Engine(Settings(index=folder / "index", weights=path), matcher)
        sketch = engine.prepare(samples.sketch.read_bytes())
        for method in matcher.methods:
            engine.search(sketch, SearchQuery(method=method, diffuse=None)).model_dump_json()
    except Refusal as error:
        print(f"refused: {error}")
        return 0
    print("used")
    return 0
