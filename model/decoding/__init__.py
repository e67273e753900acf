"""Decodes pictures in separate processes with limits, which can neither block nor end the program itself."""

from sketch_search.model.decoding.messages import Job
from sketch_search.model.decoding.pool import Decoders, RunJob, decode_inline
