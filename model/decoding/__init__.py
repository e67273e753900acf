"""Decoding pictures in processes of their own, which have limits and cannot hold or take along the program itself."""

from model.decoding.messages import Job
from model.decoding.pool import Decoders, RunJob, run_here
