"""The suite that every host passes, and what it needs."""

import pytest

pytest.register_assert_rewrite("tests.hosts.contract")
