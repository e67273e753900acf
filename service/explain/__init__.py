"""Why photos match a sketch: as the answer of POST /explain, as a page of its own, and as the figures of the paper."""

from service.explain.files import NamedPhoto, best_of_index, write_explanation
from service.explain.paper_figures import EXPLAINED, figures
from service.explain.response import explain
