"""Measures speed; each module is a program, which ``make bench`` runs."""

import model as model  # before NumPy, whose threads it keeps from spinning, as in the program that is measured
