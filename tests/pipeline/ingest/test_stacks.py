import numpy as np

from pipeline.ingest.stacks import StackWriter


def test_images_are_sorted_into_stacks_by_shape_and_type(tmp_path):
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 255, shape).astype(kind)
        for shape, kind in [((4, 5), "u1"), ((4, 5), "u2"), ((4, 5, 3), "u1"), ((4, 5), "u1")]
    ]
    writer = StackWriter(tmp_path / "stacks")
    places = [writer.append(image) for image in images]
    writer.close()
    writer.close()
    assert places == [("4x5-uint8.npy", 0), ("4x5-uint16.npy", 0), ("4x5x3-uint8.npy", 0), ("4x5-uint8.npy", 1)]
    for image, (name, row) in zip(images, places, strict=True):
        np.testing.assert_array_equal(np.load(tmp_path / "stacks" / name, mmap_mode="r")[row], image)


def test_a_long_stack_keeps_its_header_in_place(tmp_path):
    writer = StackWriter(tmp_path)
    for value in range(1234):
        writer.append(np.full((1, 2), value, np.uint16))
    writer.close()
    stack = np.load(tmp_path / "1x2-uint16.npy")
    assert stack.shape == (1234, 1, 2)
    np.testing.assert_array_equal(stack[:, 0, 1], np.arange(1234))


def test_nothing_is_made_without_images(tmp_path):
    StackWriter(tmp_path / "stacks").close()
    assert not (tmp_path / "stacks").exists()
