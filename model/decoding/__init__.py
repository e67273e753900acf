"""Decodes pictures in separate processes with limits, which can neither block nor end the program itself."""

from sketch_search.model.decoding.pool import Decoders, Job, RunJob, decode_inline
