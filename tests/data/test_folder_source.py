import numpy as np
import pytest
from PIL import Image

from recon_jax.data import open_source


def write(path, value, size=(8, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(path)


@pytest.fixture
def folder(tmp_path):
    for split, first in (("train", 0), ("test", 100)):
        write(tmp_path / split / "dog" / "b.png", first + 20)
        write(tmp_path / split / "dog" / "a.png", first + 10)
        write(tmp_path / split / "cat" / "z.PNG", first + 30)
    return tmp_path


def values(source):
    images, labels = source.read(np.arange(source.num_images))
    return images[:, 0, 0, 0].tolist(), labels.tolist()


def test_classes_and_files_are_sorted(folder):
    name = f"folder:{folder}"
    train, test = open_source(name), open_source(name, "test")
    assert train[:5] == (name, "train", 3, (8, 8, 3), ("cat", "dog"))
    assert values(train) == ([30, 10, 20], [0, 1, 1])
    assert test.split == "test"
    assert values(test) == ([130, 110, 120], [0, 1, 1])


def test_without_splits_the_folder_is_the_train_split(folder):
    source = open_source(f"folder:{folder}/train")
    assert values(source) == ([30, 10, 20], [0, 1, 1])
    with pytest.raises(FileNotFoundError, match=r"no test split.*only a train split"):
        open_source(f"folder:{folder}/train", "test")


@pytest.mark.parametrize(("kept", "asked"), [("train", "test"), ("test", "train")])
def test_a_missing_split_is_an_error(folder, kept, asked):
    (folder / asked).rename(folder / ".away")
    with pytest.raises(FileNotFoundError, match=f"no {asked} split.* only {kept} is there"):
        open_source(f"folder:{folder}", asked)
    assert open_source(f"folder:{folder}", kept).num_images == 3


def test_test_labels_follow_the_train_classes(folder):
    write(folder / "train" / "ant" / "a.png", 1)
    source = open_source(f"folder:{folder}", "test")
    assert source.label_names == ("ant", "cat", "dog")
    assert values(source)[1] == [1, 2, 2]


def test_a_class_of_test_alone_is_an_error(folder):
    write(folder / "test" / "emu" / "a.png", 1)
    with pytest.raises(ValueError, match=r"'emu' is not in the train split.*cat, dog"):
        open_source(f"folder:{folder}", "test")


def test_jpegs_count_and_other_files_do_not(folder):
    write(folder / "train" / "cat" / "c.jpg", 200)
    write(folder / "train" / "cat" / "d.JPEG", 200)
    write(folder / "train" / "cat" / ".hidden.png", 1)
    (folder / "train" / "cat" / "notes.txt").write_text("x")
    (folder / "train" / ".cache").mkdir()
    assert open_source(f"folder:{folder}").num_images == 5


def test_limit_keeps_the_first_of_each_class(folder):
    assert values(open_source(f"folder:{folder}", limit=2)) == ([30, 10], [0, 1])


def test_grey_stays_grey_unless_one_has_colour(tmp_path):
    write(tmp_path / "a" / "1.png", 50, mode="L")
    write(tmp_path / "a" / "2.png", 60, mode="L")
    assert open_source(f"folder:{tmp_path}").image_shape == (8, 8, 1)
    write(tmp_path / "b" / "1.png", 70)
    write(tmp_path / "b" / "2.png", 80, mode="RGBA")
    source = open_source(f"folder:{tmp_path}")
    assert source.image_shape == (8, 8, 3)
    np.testing.assert_array_equal(
        source.read(np.arange(4))[0][:, 3, 3], np.outer([50, 60, 70, 80], [1, 1, 1])
    )


def test_two_sizes_need_a_size(folder):
    write(folder / "train" / "cat" / "tall.png", 77, size=(8, 14))
    with pytest.raises(ValueError, match=r"14x8 and 8x8 pixels .* image_size=N"):
        open_source(f"folder:{folder}")
    source = open_source(f"folder:{folder}", image_size=5)
    assert source.image_shape == (5, 5, 3)
    assert values(source) == ([77, 30, 10, 20], [0, 0, 1, 1])


def test_a_file_that_is_no_picture_is_named(folder):
    (folder / "train" / "dog" / "bad.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cannot read image .*dog/bad\.png"):
        open_source(f"folder:{folder}")


def test_a_truncated_picture_is_named_when_read(folder):
    path = folder / "train" / "dog" / "bad.png"
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:100])
    source = open_source(f"folder:{folder}")
    source.read(np.array([0]))
    with pytest.raises(ValueError, match=r"cannot read image .*dog/bad\.png"):
        source.read(np.arange(4))


def test_folders_without_images_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_source(f"folder:{tmp_path}/none")
    with pytest.raises(ValueError, match="holds no class folders"):
        open_source(f"folder:{tmp_path}")
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="'cat' holds no image files"):
        open_source(f"folder:{tmp_path}")


def test_images_in_subfolders_of_a_class_are_found(tmp_path):
    # The layout of tiny-imagenet-200: train/<class>/images/*.JPEG
    for name in ("n01", "n02"):
        folder = tmp_path / "train" / name / "images"
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4), (9, 9, 9)).save(folder / f"{name}_0.JPEG")
    source = open_source(f"folder:{tmp_path}")
    assert source.num_images == 2
    assert source.label_names == ("n01", "n02")
