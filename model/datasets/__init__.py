"""Labelled sketches and photos: files on disk, classes and splits, pairs, and which are queries and gallery."""

from model.datasets.corpus import (
    Corpus,
    Picture,
    cache_folder,
    data_folder,
    drawn_from,
    read_class_folders,
    read_data,
    read_more,
    read_protocol,
    read_split,
    split_fresh,
    thin_classes,
    with_pairs,
)
from model.datasets.optional import IMAGENET_PART, read_drawings, read_imagenet, too_near
from model.datasets.tasks import (
    LARGE_PROTOCOLS,
    Task,
    check_classes,
    hold_out,
    one_data_set,
    read_task,
    rows_by_label,
    rows_of_each,
    some_of_each,
    subsampled,
    write_folders,
)
