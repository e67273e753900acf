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
from model.datasets.layouts import STANDARD_SPLITS, class_key
from model.datasets.optional import IMAGENET_PART, Further, read_drawings, read_imagenet, read_synonyms, too_near
from model.datasets.pixels import normalised, pictures_key, prepared_pixels
from model.datasets.tasks import (
    LARGE_PROTOCOLS,
    LAYOUTS,
    PROTOCOLS,
    SPLITS,
    GroupedTask,
    Layout,
    Protocol,
    Task,
    answerable,
    hold_out,
    one_data_set,
    read_large_task,
    read_task,
    rows_by_class,
    rows_by_label,
    rows_of_each,
    some_of_each,
    subsampled,
    write_folders,
)
