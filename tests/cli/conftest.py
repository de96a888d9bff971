"""Commands that run inside the tests keep no compiled programs in the user's folder."""

import pytest


@pytest.fixture(scope="package", autouse=True)
def _nothing_kept(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxrelu.cli.path.keep_compiled_programs", lambda: None)
        # As processes of their own they do, elsewhere.
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
