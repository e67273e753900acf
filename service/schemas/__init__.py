"""Defines requests and answers as pydantic models, shared by server, client and command line."""
