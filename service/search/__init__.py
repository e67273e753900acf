"""The search in two stages over a gallery; ``searcher`` outlines it on one screen."""

from service.search.paging import after, continued
from service.search.plan import methods_of
from service.search.searcher import Searcher
