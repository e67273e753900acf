"""One table of all methods, each trained from the same network, at one budget, at the best of three learning rates.

A scoreboard measures finished checkpoints on public data sets instead.
"""

from model.papers.comparison.rows import ComparisonRow
from model.papers.comparison.run import ComparisonRequest, compare, finished_rows
from model.papers.comparison.scoreboard import ScoreboardRequest, score_checkpoints, scoreboard_table
from model.papers.comparison.table import comparison_table, draw_comparison

__all__ = [
    "ComparisonRequest",
    "ComparisonRow",
    "ScoreboardRequest",
    "compare",
    "comparison_table",
    "draw_comparison",
    "finished_rows",
    "score_checkpoints",
    "scoreboard_table",
]
