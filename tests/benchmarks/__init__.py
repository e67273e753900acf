"""Measures speed; each module is a program, which ``make bench`` runs."""
