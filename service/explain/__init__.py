"""Why photos match a sketch: as the answer of POST /explain and as a page of its own."""

from service.explain.files import NamedPhoto, best_of_index, write_explanation
from service.explain.response import explain
