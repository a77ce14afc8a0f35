"""A file has changed when its content has, however it was written."""

import os
from pathlib import Path

from ext_authz.runtime.watch import FileWatch


def test_nothing_has_changed_until_something_does(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("1")
    watch = FileWatch([str(file), str(file)])
    assert watch.paths == (str(file),)
    assert watch.changed() == ()
    file.write_text("2")
    assert watch.changed() == (str(file),)
    assert watch.changed() == ()


def test_the_same_text_written_again_is_no_change(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("1")
    watch = FileWatch([str(file)])
    replacement = tmp_path / "b"
    replacement.write_text("1")
    replacement.rename(file)
    assert watch.changed() == ()


def test_other_text_of_the_same_size_and_time_is_a_change(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("1")
    status = file.stat()
    watch = FileWatch([str(file)])
    file.write_text("2")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert watch.changed() == (str(file),)


def test_a_file_that_goes_and_comes_has_changed_twice(tmp_path: Path) -> None:
    file = tmp_path / "a"
    watch = FileWatch([str(file)])
    assert watch.changed() == ()
    file.write_text("1")
    assert watch.changed() == (str(file),)
    file.unlink()
    assert watch.changed() == (str(file),)


def test_a_config_map_changes_by_the_swap_of_a_symlink(tmp_path: Path) -> None:
    for version, text in (("v1", "old"), ("v2", "new")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "policy.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "policy.yaml").symlink_to("..data/policy.yaml")
    watch = FileWatch([str(tmp_path / "policy.yaml")])
    (tmp_path / "..data_tmp").symlink_to("v2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert watch.changed() == (str(tmp_path / "policy.yaml"),)
    assert watch.changed() == ()


def test_a_directory_has_changed_when_its_names_have(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    watch = FileWatch([str(tmp_path)])
    (tmp_path / "a").write_text("2")
    assert watch.changed() == ()
    (tmp_path / "b").write_text("1")
    assert watch.changed() == (str(tmp_path),)


def test_a_loop_of_symlinks_is_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert FileWatch([str(tmp_path / "a")]).changed() == ()
