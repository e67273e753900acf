"""What is asked of the service and what it answers, as pydantic models: server, client and command line share them."""

from service.schemas.errors import ErrorDetail, ErrorResponse
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
    Rebuilt,
)
from service.schemas.info import BuildInfo, HealthResponse, IndexInfo, InfoResponse, Limits, ModelInfo, SearchDefaults
from service.schemas.photos import ClusterResponse, Id, Photo, photo_url, thumbnail_url
from service.schemas.problems import describe_problems
from service.schemas.query import (
    AskedView,
    FirstStage,
    PageParams,
    Params,
    PictureKind,
    SearchQuery,
    ThumbnailParams,
    View,
)
from service.schemas.search import Cluster, Kind, SearchResponse, SearchResult, StageTimings

__all__ = [
    "AskedView",
    "BuildInfo",
    "Cluster",
    "ClusterResponse",
    "CrossAttention",
    "ErrorDetail",
    "ErrorResponse",
    "ExplainParams",
    "ExplainResponse",
    "ExplainTimings",
    "ExplainedImage",
    "ExplainedPair",
    "ExplainedPhoto",
    "FirstStage",
    "HealthResponse",
    "Id",
    "IndexInfo",
    "InfluentialPair",
    "InfoResponse",
    "Kind",
    "Limits",
    "MatchedCells",
    "ModelInfo",
    "PageParams",
    "Params",
    "Photo",
    "PictureKind",
    "Rebuilt",
    "SearchDefaults",
    "SearchQuery",
    "SearchResponse",
    "SearchResult",
    "StageTimings",
    "ThumbnailParams",
    "View",
    "describe_problems",
    "photo_url",
    "thumbnail_url",
]
