"""Why photos match, as answers, files and figures."""

from service.explain.best_photos import NamedPhoto, best_of_index
from service.explain.files import write_explanation
from service.explain.paper_figures import EXPLAINED, figures
from service.explain.response import explain

__all__ = [
    "EXPLAINED",
    "NamedPhoto",
    "best_of_index",
    "explain",
    "figures",
    "write_explanation",
]
