"""Opens picture files safely, finds the ink of a sketch, and prepares pixels for a network."""

from sketch_search.model.images.drawing import MAX_STROKES, MAX_THINGS, MOST_INK, SPECK, Drawing, DrawnThing, Stroke
from sketch_search.model.images.files import (
    LargeFile,
    OpenedImage,
    Source,
    as_png,
    media_type,
    open_dated,
    open_image,
    read_image_file,
    read_whole,
)
from sketch_search.model.images.formats import IMAGE_SUFFIXES, RAW_SUFFIXES, SKETCH_FORMATS
from sketch_search.model.images.ink import Pixels, connected, find_ink, neighbours
from sketch_search.model.images.preprocess import MAX_PARTS, Preprocessing, check_modality, cut, find_parts, fit_photo
from sketch_search.model.images.recorded import Day, Recorded, beside, best_day, day_beside, day_in_path, files_beside
from sketch_search.model.images.subject import average_cells, colours_of_cells, hexadecimal, lab
from sketch_search.model.images.vector import picture_of_body, read_strokes, saved_strokes
