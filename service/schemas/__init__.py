"""Defines requests and answers as pydantic models, which server, client and command line share."""

from service.schemas.errors import ErrorDetail, ErrorResponse, describe_problems
from service.schemas.explain import (
    CrossAttention,
    ExplainedImage,
    ExplainedPhoto,
    ExplainParams,
    ExplainResponse,
    ExplainTimings,
    InfluentialPair,
    MatchedCells,
    NearPhoto,
)
from service.schemas.info import (
    Allowed,
    BuildInfo,
    FoldersResponse,
    GalleryResponse,
    HealthResponse,
    IndexInfo,
    InfoResponse,
    Limits,
    ModelInfo,
    RemovedResponse,
    SearchDefaults,
    ShardInfo,
    UnreadFile,
    WordsResponse,
)
from service.schemas.query import (
    MAX_VARIANTS,
    BuildParams,
    FoldersParams,
    Id,
    PageParams,
    Params,
    PhotosParams,
    PictureKind,
    Quality,
    RemoveParams,
    SearchQuery,
    System,
    ThumbnailParams,
    View,
    WordsParams,
)
from service.schemas.search import (
    HASH_SHOWN,
    Cluster,
    ClusterResponse,
    Group,
    Guessed,
    Photo,
    PhotosResponse,
    SearchResponse,
    SearchResult,
    StageTimings,
)
