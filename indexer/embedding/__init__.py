"""Computes the vectors that photos are clustered by: the checkpoint's own [Ret], or CLIP's if the user asks for it.

``open_towers`` gives both towers of CLIP, for searches by text and by CLIP's vector of a sketch.
"""

from indexer.embedding.embedders import ChosenEmbedder, WantedEmbedder, open_towers
