"""Two or more checkpoints on one's own photos and sketches: their first results side by side.

``compare_checkpoints`` indexes the photos once with each checkpoint and searches with every sketch; ``comparison_page``
writes what they found as one HTML page.
"""

from service.comparison.page import comparison_page
from service.comparison.searches import (
    Comparison,
    Found,
    NetworkResults,
    Sketch,
    compare_checkpoints,
    labels_of,
    relevant_photos,
)

__all__ = [
    "Comparison",
    "Found",
    "NetworkResults",
    "Sketch",
    "compare_checkpoints",
    "comparison_page",
    "labels_of",
    "relevant_photos",
]
