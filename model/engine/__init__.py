"""Runs networks without PyTorch, numpy in, numpy out: ``surface`` defines engines, ``runtime`` runs ``graphs``."""

from sketch_search.model.engine.config import (
    MAX_NAMES,
    METHODS,
    PRESETS,
    TWO_SIDED,
    UNCALIBRATED,
    Calibration,
    Method,
    Modality,
    ModelConfig,
    NetworkConfig,
    TwoSidedConfig,
    ZseConfig,
    check_modality,
    from_json,
    preset,
    to_json,
)
from sketch_search.model.engine.files import (
    DESCRIPTION,
    CheckpointFiles,
    SeenClasses,
    config_on_photo_side,
    default_checkpoint,
    file_sha256,
    find_photo_side,
    is_checkpoint,
    read_files,
    read_metadata,
    seen_classes,
)
from sketch_search.model.engine.knowledge import (
    Prior,
    Projection,
    Vocabulary,
    below,
    expectations,
    knowledge_of,
    logsumexp,
    sigmoid,
)
from sketch_search.model.engine.parting import Parting
from sketch_search.model.engine.surface import (
    Aligned,
    Engine,
    Matching,
    Observed,
    SelfAttention,
    grid_maps,
    set_threads,
    threads,
)
from sketch_search.model.engine.tokens import (
    Floats,
    Numbers,
    Tokens,
    as_floats,
    average_variants,
    cells_of_patches,
    cosines,
    sketch_variants,
    unit,
    widen,
)
