"""The vectors that photos are clustered by. Another kind of embedding would be one more module here.

They are CLIP's where its weights are on this disk or are asked for, else the checkpoint's own [Ret]. ``open_towers``
gives both towers of CLIP, for searches by text and by CLIP's vector of a sketch.
"""

from indexer.embedding.embedders import ChosenEmbedder, Embedder, WantedEmbedder, choose_embedder
from indexer.embedding.towers import ClipTowers, open_towers
