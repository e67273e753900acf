"""The vectors that photos are clustered by."""

from indexer.embedding.clip import ChosenEmbedder, Embedder, choose_embedder

__all__ = ["ChosenEmbedder", "Embedder", "choose_embedder"]
