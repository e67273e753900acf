"""Explains why photos match a sketch: as the answer of POST /explain, and as files."""

from service.explain.files import side_by_side, write_explanation
from service.explain.response import explain
