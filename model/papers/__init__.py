"""Trainings by recipes, of the default network and of those that papers describe. No search needs them."""

from model.papers.runs import Run
from model.papers.trainings import train
from model.papers.zse.photo_side import make_photo_side
from model.papers.zse.words import give_words
