"""Reads labelled sketches and photos: files, classes, splits and pairs; and chooses the queries and the gallery."""

from typing import TYPE_CHECKING, Any

from sketch_search.model.training.datasets.corpus import (
    DATA_VARIABLE,
    DRAWINGS_PART,
    IMAGENET_PART,
    PACS_PART,
    Corpus,
    Picture,
    cache_folder,
    classes_of,
    data_folder,
    find_drawn_photos,
    read_class_folders,
    read_clip_vectors,
    read_data,
    read_drawings,
    read_imagenet,
    read_line_drawings,
    read_more,
    read_pacs,
    read_protocol,
    read_split,
    rows_by_label,
    split_fresh,
    stale_sketches,
    too_near,
    with_pairs,
)
from sketch_search.model.training.datasets.tasks import (
    CLICKS,
    LARGE_PROTOCOLS,
    PARTS,
    PROTOCOLS,
    REMEMBERED_PROTOCOLS,
    STANDARD_SPLITS,
    TRAINED,
    UNSEEN,
    ZERO_SHOT_PROTOCOLS,
    Drawn,
    Protocol,
    Remembered,
    RememberedTask,
    Task,
    answerable,
    choose_standard_split,
    class_key,
    hold_out,
    read_remembered,
    read_task,
    some_of_each,
    split_by_data_set,
    standard_split,
    write_folders,
)

if TYPE_CHECKING:
    from sketch_search.model.training.datasets.prepared import PreparedPictures


def __getattr__(name: str) -> Any:
    """Imports the data set for PyTorch on first use, because commands without PyTorch import this package."""
    if name != "PreparedPictures":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sketch_search.model.training.datasets.prepared import PreparedPictures

    return PreparedPictures
