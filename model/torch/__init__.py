"""Holds the networks (``NETWORKS``), which make tokens of pictures, and relation scores of two pictures' tokens."""

from collections.abc import Mapping

from sketch_search.model.torch.clip import (
    DEFAULT_CLIP,
    ClipEmbedder,
    TextTower,
    clip_encoder,
    find_clip,
    read_clip,
    rename,
)
from sketch_search.model.torch.one_vector import (
    Anchor,
    AnchorConfig,
    AnchorNetwork,
    ClipAtConfig,
    ClipAtNetwork,
    Learned,
    anchor_network_from,
    clip_at_network_from,
)
from sketch_search.model.torch.relation import Tokens
from sketch_search.model.torch.two_sided import (
    BLOCK_MATRICES,
    PhotoSide,
    TwoSidedEncoder,
    main_layout,
    second_layout,
    vit_of_photo_side,
)
from sketch_search.model.torch.vit import Encoder, PretrainedVit, RetNetwork, VitLayout, layout_of, load_vit, vit_layout
from sketch_search.model.torch.zse import (
    Network,
    TorchEngine,
    as_zse,
    fastest_dtype,
    find_device,
    from_backbone,
    multiplies_bf16,
    read_backbone,
)

# All kinds of networks, by the name that the metadata of a checkpoint has for each.
NETWORKS: Mapping[str, type[RetNetwork]] = {kind.kind: kind for kind in (Network, AnchorNetwork, ClipAtNetwork)}
