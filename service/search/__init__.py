"""The search in two stages over a gallery; ``searcher`` outlines it on one screen."""

from sketch_search.service.search.paging import after, continued
from sketch_search.service.search.plan import methods_of
from sketch_search.service.search.searcher import Searcher
