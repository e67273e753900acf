"""Explains why photos match a sketch: as the answer of POST /explain, and as files."""

from sketch_search.service.explain.places import locate
from sketch_search.service.explain.response import explain, side_by_side, write_explanation
