"""Decoding pictures in processes of their own, which have limits and cannot hold or take along the program itself."""

from model.decoding.job import Job
from model.decoding.pool import Decoders, RunJob, run_here

__all__ = ["Decoders", "Job", "RunJob", "run_here"]
