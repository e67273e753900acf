"""Trains the default network, and networks that papers describe, by recipes. No search needs this package."""

from sketch_search.model.papers.parting import give_parting
from sketch_search.model.papers.photo_side import make_photo_side
from sketch_search.model.papers.placed_words import give_scenes, place_words
from sketch_search.model.papers.recipe import changes_of, merge
from sketch_search.model.papers.runs import Run, check_target
from sketch_search.model.papers.tables import TableRun, write_block
from sketch_search.model.papers.trainings import TRAININGS, network_of, read_recipe
from sketch_search.model.papers.vocabulary import give_regions, give_things, give_words
