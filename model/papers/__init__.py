"""Trains the default network, and networks that papers describe, by recipes. No search needs this package."""

from model.papers.photo_side import make_photo_side
from model.papers.placed_words import place_words
from model.papers.recipe import changes_of, merged, network_of, read_recipe
from model.papers.regions import give_regions
from model.papers.runs import Run, check_target
from model.papers.tables import TableRun, write_block
from model.papers.trainings import TRAININGS, snapshot
from model.papers.vocabulary import give_things, give_words
