"""Trainings by recipes, of the default network and of those that papers describe. No search needs them."""

from model.papers.comparison import ComparisonRequest, compare, comparison_table
from model.papers.runs import Run
from model.papers.trainings import train
from model.papers.zse.photo_side import make_photo_side
from model.papers.zse.words import give_words

__all__ = [
    "ComparisonRequest",
    "Run",
    "compare",
    "comparison_table",
    "give_words",
    "make_photo_side",
    "train",
]
