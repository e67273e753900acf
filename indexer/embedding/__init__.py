"""The vectors that photos are clustered by. Another kind of embedding would be one more module here.

They are CLIP's where its weights are on this disk or are asked for, else the checkpoint's own [Ret].
"""

from indexer.embedding.choice import WantedEmbedder, choose_embedder
from indexer.embedding.embedder import ChosenEmbedder, Embedder

__all__ = ["ChosenEmbedder", "Embedder", "WantedEmbedder", "choose_embedder"]
