"""The photos that are searched: as a table, in one index on this machine, and in several shards as one gallery."""

from service.gallery.gallery import (
    Computed,
    Gallery,
    GenerationGone,
    Layout,
    Pending,
    Round,
    ShardLink,
    ShardRefuses,
    ShardUnavailable,
    State,
)
from service.gallery.shard import Call, Overview, Shard
from service.gallery.table import (
    Cells,
    Find,
    Ids,
    Rows,
    Scores,
    Table,
    Word,
    best_first,
    interleaved,
)
