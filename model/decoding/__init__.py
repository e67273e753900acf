"""Decodes pictures in separate processes with limits, which can neither block nor end the program itself."""

from model.decoding.messages import Job
from model.decoding.pool import Decoders, RunJob, decode_inline
