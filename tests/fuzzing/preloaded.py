"""What every case needs, loaded once: each case is a fork of the process that has imported this."""

import gc
import importlib
import os

from PIL import Image

# No case asks other machines; read by the libraries as they are imported.
os.environ |= {"HF_HUB_OFFLINE": "1", "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
os.environ["NO_PROXY"] = "127.0.0.1,localhost"

for name in (
    *("pytest", "torch", "timm", "faiss", "pillow_heif", "indexer.commands", "model.commands", "model.images"),
    *("service.http", "service.commands.dispatch", "tests.fuzzing.targets"),
):
    importlib.import_module(name)
Image.init()
# A collection in a fork would touch, and so copy, every page of what is here.
gc.freeze()
