import pytest

from .runs import finish


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A function that gives the workdir of a run that nothing interrupted, on so many devices."""
    done = {}

    def run(devices=1):
        if devices not in done:
            done[devices] = tmp_path_factory.mktemp("whole") / f"run{devices}"
            finish(done[devices], devices)
        return done[devices]

    return run
