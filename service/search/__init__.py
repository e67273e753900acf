"""The search over a gallery, by ``model.search``: queries are planned and encoded, rankings become answers."""

from sketch_search.service.search.plan import ReadText, TextTowers, check_names
from sketch_search.service.search.searcher import Searcher, continue_page, next_place
