"""Opens picture files safely, finds the ink of a sketch, and prepares pixels for a network."""

from model.images.colours import averaged, colours_of_cells, hexadecimal, lab
from model.images.dates import day_beside, day_in_name, names_beside
from model.images.drawing import MAX_THINGS, Drawing, DrawnThing
from model.images.files import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    OpenedImage,
    Source,
    as_png,
    media_type,
    open_dated,
    open_image,
    read_image_file,
)
from model.images.ink import Pixels, find_ink
from model.images.preprocess import Preprocessing
from model.images.raw import RAW_SUFFIXES
