"""Trains the default network, and networks that papers describe, by recipes. No search needs this package."""

from sketch_search.model.training.papers.parting import give_parting
from sketch_search.model.training.papers.photo_side import make_photo_side
from sketch_search.model.training.papers.placed_words import give_scenes, place_words
from sketch_search.model.training.papers.recipe import changes_of, merge
from sketch_search.model.training.papers.runs import Run, check_target
from sketch_search.model.training.papers.tables import TableRun, write_block
from sketch_search.model.training.papers.trainings import TRAININGS, network_of, read_recipe
from sketch_search.model.training.papers.vocabulary import give_regions, give_things, give_words
