import io

import numpy as np
import pytest
from PIL import Image

from recon_jax.data import open_source

NAMES = np.array(["cat", "dog"])


def pixels(n=6, shape=(8, 8, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def pixel_arrays():
    return {
        "train_images": pixels(6),
        "train_labels": np.array([0, 0, 0, 1, 1, 0], np.uint8),
        "test_images": pixels(3, seed=1),
        "test_labels": np.array([1, 0, 1]),
        "label_names": NAMES,
    }


def jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def jpeg_arrays(files, labels=None):
    labels = np.arange(len(files)) % 2 if labels is None else labels
    return {
        "train_jpeg": np.frombuffer(b"".join(files), np.uint8),
        "train_offsets": np.cumsum([0] + [len(f) for f in files]),
        "train_labels": labels,
        "label_names": NAMES,
    }


def flat(value, height=8, width=8):
    return jpeg(np.full((height, width, 3), value, np.uint8))


def save(path, arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "data.npz"


def test_pixels_of_both_splits(file):
    arrays = pixel_arrays()
    name = save(file, arrays)
    for split, n in (("train", 6), ("test", 3)):
        source = open_source(name, split)
        assert source[:5] == (name, split, n, (8, 8, 3), ("cat", "dog"))
        images, labels = source.read(np.arange(n))
        np.testing.assert_array_equal(images, arrays[f"{split}_images"])
        np.testing.assert_array_equal(labels, arrays[f"{split}_labels"])
        assert labels.dtype == np.int32


def test_float_pixels_stay_as_they_are(file):
    arrays = pixel_arrays() | {"train_images": pixels().astype(np.float32) / 7 - 3}
    images, _ = open_source(save(file, arrays)).read(np.arange(6))
    np.testing.assert_array_equal(images, arrays["train_images"])


def test_limit_is_balanced_and_size_is_changed(file):
    arrays = pixel_arrays()
    source = open_source(save(file, arrays), limit=4, image_size=4)
    assert source.image_shape == (4, 4, 3)
    images, labels = source.read(np.arange(4))
    np.testing.assert_array_equal(labels, [0, 0, 1, 1])
    expected = [
        np.asarray(Image.fromarray(arrays["train_images"][i]).resize((4, 4), Image.LANCZOS))
        for i in (0, 1, 3, 4)
    ]
    np.testing.assert_array_equal(images, expected)


def test_jpeg_files_are_decoded_in_order(file):
    source = open_source(save(file, jpeg_arrays([flat(v) for v in (10, 100, 200)])))
    images, labels = source.read(np.array([2, 0, 1]))
    assert source.image_shape == (8, 8, 3)
    np.testing.assert_allclose(images.mean((1, 2, 3)), [200, 10, 100], atol=2)
    np.testing.assert_array_equal(labels, [0, 0, 1])


def test_grey_jpeg_stays_one_channel_unless_mixed(file):
    grey = jpeg(np.full((8, 8), 50, np.uint8))
    assert open_source(save(file, jpeg_arrays([grey, grey]))).image_shape == (8, 8, 1)
    source = open_source(save(file, jpeg_arrays([grey, flat(90)])))
    assert source.image_shape == (8, 8, 3)
    np.testing.assert_allclose(source.read(np.array([0]))[0], 50, atol=2)


def test_only_the_kept_jpegs_are_decoded(file):
    arrays = jpeg_arrays([flat(1), flat(2), b"broken"], np.array([0, 1, 0]))
    assert open_source(save(file, arrays), limit=2).num_images == 2


def test_jpegs_of_two_sizes_need_a_size(file):
    name = save(file, jpeg_arrays([flat(10), flat(20, 8, 12)]))
    with pytest.raises(ValueError, match=r"8x8 and 8x12 .* image_size=N"):
        open_source(name)
    source = open_source(name, image_size=6)
    np.testing.assert_allclose(source.read(np.arange(2))[0].mean((1, 2, 3)), [10, 20], atol=2)


@pytest.mark.parametrize("keep", [20, -30])
def test_a_broken_jpeg_is_named_by_its_index(file, keep):
    files = [flat(1), jpeg(pixels(1, (40, 40, 3))[0])[:keep], flat(3)]
    with pytest.raises(ValueError, match="train JPEG 1"):
        open_source(save(file, jpeg_arrays(files)), image_size=8)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_source(f"npz:{tmp_path}/none.npz")


@pytest.mark.parametrize("key", ["train_images", "train_labels", "label_names"])
def test_a_missing_key_is_named_with_those_present(file, key):
    arrays = pixel_arrays()
    del arrays[key]
    with pytest.raises(ValueError, match=f"lacks {key}; it holds .*test_images.* Needed: .*JPEG"):
        open_source(save(file, arrays))


def test_a_missing_split_is_named(file):
    name = save(file, jpeg_arrays([flat(1), flat(2)]))
    with pytest.raises(ValueError, match="lacks test_images, test_labels"):
        open_source(name, "test")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.95])
def test_a_truncated_file(file, part, compressed):
    (np.savez_compressed if compressed else np.savez)(file, **pixel_arrays())
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match=r"not a complete \.npz file"):
        open_source(f"npz:{file}")


def test_a_flipped_byte_is_noticed(file):
    np.savez(file, **pixel_arrays())
    content = bytearray(file.read_bytes())
    content[600] ^= 255
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"not a complete \.npz file"):
        open_source(f"npz:{file}")


def test_other_files_are_refused(file):
    file.write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"not a complete \.npz file"):
        open_source(f"npz:{file}")
    with file.open("wb") as f:
        np.save(f, np.zeros(3))
    with pytest.raises(ValueError, match=r"not a complete \.npz file"):
        open_source(f"npz:{file}")


def test_pickles_are_refused_without_advice_to_allow_them(file):
    arrays = pixel_arrays() | {"label_names": np.array(["a", None], object)}
    with pytest.raises(ValueError, match="no object arrays") as caught:
        open_source(save(file, arrays))
    assert "allow_pickle" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": np.zeros(5, int)}, r"train_labels has shape \(5,\).* 6 images"),
        ({"train_labels": np.zeros((6, 1), int)}, r"train_labels has shape \(6, 1\)"),
        ({"train_labels": np.full(6, 2)}, "label 2 is outside"),
        ({"train_labels": np.zeros(6)}, "dtype float64"),
        ({"train_images": pixels().astype(int)}, "dtype int64"),
        ({"train_images": np.full((6, 2, 2, 1), np.nan)}, "image 0 holds NaN"),
    ],
)
def test_pixel_arrays_that_do_not_fit(file, changes, message):
    with pytest.raises(ValueError, match=message):
        open_source(save(file, pixel_arrays() | changes))


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 900, 500], "offset 1 is 900 and offset 2 is 500"),
        ([0, 0, 500], "offset 0 is 0 and offset 1 is 0"),
        ([0, 500, 10**7], "outside the"),
        ([-5, 500, 600], "outside the"),
        ([0, 500], "there are 1 images"),
        ([0.0, 1.0, 2.0], "dtype float64"),
        ([0], r"shape \(1,\)"),
    ],
)
def test_offsets_that_do_not_fit(file, offsets, message):
    arrays = jpeg_arrays([flat(1), flat(2)]) | {"train_offsets": np.array(offsets)}
    with pytest.raises(ValueError, match=message):
        open_source(save(file, arrays))


def test_jpeg_bytes_must_be_bytes(file):
    arrays = jpeg_arrays([flat(1), flat(2)]) | {"train_jpeg": np.zeros(9)}
    with pytest.raises(ValueError, match=r"train_jpeg has dtype float64"):
        open_source(save(file, arrays))
