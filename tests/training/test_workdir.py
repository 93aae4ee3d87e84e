import shutil

import pytest

from recon_jax.training import lock_workdir, require_writable


def test_workdir_is_created(tmp_path):
    path = require_writable(tmp_path / "a" / "b", 1)
    assert path == tmp_path / "a" / "b"
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("name", ["file/run", "file"])
def test_workdir_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=rf"workdir .*{name} cannot be written \(.+\); choose"):
        require_writable(tmp_path / name)


def test_workdir_that_is_read_only(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"cannot be written \(Read-only file system\)"):
        require_writable(tmp_path)


def test_too_little_room(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=5 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    require_writable(tmp_path, 5 * 2**20)
    with pytest.raises(ValueError, match="has 5 MiB free, and the checkpoints need 6 MiB"):
        require_writable(tmp_path, 6 * 2**20)


def test_one_run_at_a_time(tmp_path):
    with (
        lock_workdir(tmp_path),
        pytest.raises(ValueError, match=r"in use by another live run \(process \d+ on .+\)"),
        lock_workdir(tmp_path),
    ):
        pass
    with lock_workdir(tmp_path):
        pass
