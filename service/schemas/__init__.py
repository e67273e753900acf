"""Defines requests and answers as pydantic models, shared by server, client and command line."""

from sketch_search.service.schemas.errors import ErrorDetail, ErrorResponse, describe_problems
from sketch_search.service.schemas.explain import (
    CrossAttention,
    ExplainedImage,
    ExplainedPhoto,
    ExplainParams,
    ExplainResponse,
    ExplainTimings,
    InfluentialPair,
    MatchedCells,
    NearPhoto,
    ShownThing,
)
from sketch_search.service.schemas.info import (
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
from sketch_search.service.schemas.options import Subject, beyond_two_stage, problems_of, subject_of
from sketch_search.service.schemas.query import (
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
from sketch_search.service.schemas.search import (
    HASH_SHOWN,
    PLACES,
    Cluster,
    ClusterResponse,
    Group,
    Guessed,
    Photo,
    PhotoLinks,
    PhotosResponse,
    SearchResponse,
    SearchResult,
    SeenThing,
    StageTimings,
    Unliked,
)
