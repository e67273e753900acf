"""Labelled sketches and photos: files on disk, classes and splits, pairs, and which are queries and gallery."""

from model.datasets.corpus import (
    Corpus,
    Picture,
    cache_folder,
    data_folder,
    read_class_folders,
    read_data,
    read_more,
    read_protocol,
    read_split,
    thin_classes,
)
from model.datasets.everything import LARGE_PROTOCOLS, GroupedTask, read_large_task, write_folders
from model.datasets.fresh import split_fresh
from model.datasets.further import IMAGENET_PART, Further, read_imagenet, too_near
from model.datasets.layouts import STANDARD_SPLITS, class_key
from model.datasets.pairs import drawn_from, with_pairs
from model.datasets.pixels import normalised, pictures_key, prepared_pixels
from model.datasets.protocols import (
    PROTOCOLS,
    Protocol,
    answerable,
    hold_out,
    one_data_set,
    rows_by_class,
    rows_of_each,
    some_of_each,
    subsampled,
)
from model.datasets.synonyms import read_synonyms
from model.datasets.tasks import LAYOUTS, SPLITS, Layout, Task, read_task

__all__ = [
    "IMAGENET_PART",
    "LARGE_PROTOCOLS",
    "LAYOUTS",
    "PROTOCOLS",
    "SPLITS",
    "STANDARD_SPLITS",
    "Corpus",
    "Further",
    "GroupedTask",
    "Layout",
    "Picture",
    "Protocol",
    "Task",
    "answerable",
    "cache_folder",
    "class_key",
    "data_folder",
    "drawn_from",
    "hold_out",
    "normalised",
    "one_data_set",
    "pictures_key",
    "prepared_pixels",
    "read_class_folders",
    "read_data",
    "read_imagenet",
    "read_large_task",
    "read_more",
    "read_protocol",
    "read_split",
    "read_synonyms",
    "read_task",
    "rows_by_class",
    "rows_of_each",
    "some_of_each",
    "split_fresh",
    "subsampled",
    "thin_classes",
    "too_near",
    "with_pairs",
    "write_folders",
]
