"""The search over a gallery, by ``model.search``: queries are planned and encoded, rankings become answers."""

from sketch_search.service.search.searcher import Searcher
from sketch_search.service.search.shown import continue_page, next_place
