"""Objectives: which pictures a training step takes, and the losses it computes on them."""

from model.training.objectives.listwise import ListwiseObjective
from model.training.objectives.names import imagenet_names
from model.training.objectives.quadruplets import QuadrupletObjective
from model.training.objectives.teacher import Teacher, ask_teacher

__all__ = [
    "ListwiseObjective",
    "QuadrupletObjective",
    "Teacher",
    "ask_teacher",
    "imagenet_names",
]
