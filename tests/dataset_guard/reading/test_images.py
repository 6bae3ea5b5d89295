"""Folders of images: bytes and folder names, never pixels."""

import pyarrow as pa
import pytest

import dataset_guard
from dataset_guard.reading import open_source
from guard_core.errors import UserError


def image(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    for i in range(5):
        image(tmp_path / "pets" / "cat" / f"{i}.png", b"cat%d" % i)
        image(tmp_path / "pets" / "dog" / f"{i}.JPG", b"dog%d" % i)
    return tmp_path / "pets"


def test_a_row_is_a_file_with_the_name_of_its_folder_as_label(folder):
    source = open_source(folder)
    table = pa.Table.from_batches(source.stream())
    assert source.kind == "images"
    assert table.column("image").to_pylist() == [b"cat%d" % i for i in range(5)] + [
        b"dog%d" % i for i in range(5)
    ]
    assert table.column("label").to_pylist() == ["cat"] * 5 + ["dog"] * 5
    assert [source.name_of(f) for f in source.files][5] == "dog/0.JPG"
    assert dataset_guard.fingerprint(folder).fingerprint == dataset_guard.fingerprint(table).fingerprint


def test_windows_and_columns(folder):
    found = pa.Table.from_batches(open_source(folder).stream(columns=["label"], first_row=4, rows=2))
    assert found.to_pydict() == {"label": ["cat", "dog"]}


def test_images_without_folders_have_no_label(tmp_path):
    image(tmp_path / "a.webp", b"a")
    assert open_source(tmp_path).schema.names == ["image"]
    assert open_source(tmp_path / "a.webp").num_rows == 1


def test_a_changed_image_is_found_and_named(folder, home):
    dataset_guard.register(folder, name="pets", label="label", home=home, checks=["schema"])
    assert dataset_guard.verify("pets@1", home=home).ok
    image(folder / "dog" / "3.JPG", b"other")
    found = dataset_guard.verify("pets@1", home=home)
    assert [(c.file, c.column, list(c.rows)) for c in found.changes] == [("dog/3.JPG", "image", [8])]


def test_an_image_moved_to_another_class_is_a_changed_label(folder, home):
    dataset_guard.register(folder, name="pets", label="label", home=home, checks=["schema"])
    (folder / "dog" / "0.JPG").rename(folder / "cat" / "9.JPG")
    found = dataset_guard.verify("pets@1", home=home)
    assert not found.ok
    assert "dog/0.JPG is missing" in found.problems
    assert "cat/9.JPG was added, with the bytes of dog/0.JPG" in found.problems


def test_a_stray_file_is_refused(folder):
    image(folder / "labels.csv", b"a\n1\n")
    with pytest.raises(UserError, match="keep one format"):
        open_source(folder)
