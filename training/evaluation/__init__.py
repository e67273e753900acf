"""Measures a checkpoint's retrieval, explanations and words; and chooses calibrations by these measurements."""
