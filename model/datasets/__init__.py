"""Reads labelled sketches and photos: files, classes, splits and pairs; and chooses the queries and the gallery."""

from model.datasets.corpus import (
    IMAGENET_PART,
    Corpus,
    Picture,
    cache_folder,
    classes_of,
    data_folder,
    drawn_from,
    read_class_folders,
    read_data,
    read_drawings,
    read_imagenet,
    read_more,
    read_protocol,
    read_split,
    split_fresh,
    too_near,
    with_pairs,
)
from model.datasets.tasks import (
    LARGE_PROTOCOLS,
    Protocol,
    Task,
    hold_out,
    one_data_set,
    read_task,
    rows_by_label,
    some_of_each,
    subsampled,
    write_folders,
)
