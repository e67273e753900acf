"""The search in two stages over a gallery; ``searcher`` tells it in one screen."""

from service.search.plan import methods_of
from service.search.searcher import Searcher
