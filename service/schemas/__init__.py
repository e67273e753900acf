"""The pydantic models of requests and answers, which server, client and command line share."""

from service.schemas.errors import ErrorDetail, ErrorResponse, describe_problems
from service.schemas.explain import (
    CrossAttention,
    ExplainedImage,
    ExplainedPair,
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
    SearchDefaults,
    ShardInfo,
    UnreadFile,
    WordsResponse,
)
from service.schemas.query import (
    MAX_VARIANTS,
    AskedView,
    BuildParams,
    FoldersParams,
    Id,
    PageParams,
    Params,
    PhotosParams,
    PictureKind,
    Quality,
    SearchQuery,
    ThumbnailParams,
    View,
    WordsParams,
)
from service.schemas.search import (
    Cluster,
    ClusterResponse,
    Guessed,
    Kind,
    Photo,
    PhotosResponse,
    SearchResponse,
    SearchResult,
    StageTimings,
    Words,
    addresses,
)
