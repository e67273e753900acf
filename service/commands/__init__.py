"""The program `sketch-search`, also run by `python -m service`. ``application`` declares its commands."""

from sketch_search.service.commands.application import application, main
