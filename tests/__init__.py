import pytest

# What these modules check for tests says, if it fails, what it found.
pytest.register_assert_rewrite("tests.browser", "tests.service")
