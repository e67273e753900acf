"""The program `sketch-search`, also run by `python -m service`. ``application`` declares its commands."""

from service.commands.application import application, main
