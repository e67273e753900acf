"""One table of all methods, each trained from the same network, at one budget, at the best of three learning rates."""

from model.comparison.rows import ComparisonRow
from model.comparison.run import ComparisonRequest, compare, finished_rows
from model.comparison.table import comparison_table, draw_comparison

__all__ = [
    "ComparisonRequest",
    "ComparisonRow",
    "compare",
    "comparison_table",
    "draw_comparison",
    "finished_rows",
]
