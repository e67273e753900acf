from pathlib import Path

from sketch_search.indexer.commands.build import Work
from sketch_search.model import load
from sketch_search.service.engine import open_matcher as of_the_service
from sketch_search.service.settings import Settings


def test_indexing_by_command_serving_and_the_library_compute_in_int8_by_onnx_runtime_on_a_cpu() -> None:
    by_command = Work(Path("index"), None, "cpu", quiet=True).matcher()
    by_server = of_the_service(Settings.model_validate({"device": "cpu"}))
    assert by_command.dtype == by_server.dtype == load().dtype == "int8"
