"""The program `sketch-search`, which `python -m service` is, too. ``application`` declares its commands."""

from service.commands.application import application, main
