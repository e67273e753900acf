"""Decodes pictures in separate processes, which have limits, and which can neither block nor end the program itself."""

from model.decoding.messages import Job
from model.decoding.pool import Decoders, RunJob, decode_inline
