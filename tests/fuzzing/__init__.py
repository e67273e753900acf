"""Fuzzers: hostile files, indexes, checkpoints and command lines, made from a seed, and what the programs do with them.

`make soak` runs each for some minutes, `make test` for seconds. `python -m tests.fuzzing NAME --seed N --case N`
repeats one case.
"""
