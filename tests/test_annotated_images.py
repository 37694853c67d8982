import numpy as np
import pytest
from make_data import colour_segmenter, scene, two_things
from PIL import ExifTags, Image

from kshot.annotations.annotated_images import AnnotatedImage, Annotations, Shape, collect
from kshot.annotations.image_locator import ImageLocator
from kshot.errors import DataError, ImageError, MaskError, NotFittedError


def shape(name, value=True):
    return Shape(name, lambda size: np.full(size, value))


def refuse():
    raise NotFittedError("nobody asked for this image")


def annotated(*class_names):
    return tuple(
        AnnotatedImage(f"{n}.png", refuse, None, tuple(map(shape, names)))
        for n, names in enumerate(class_names)
    )


def test_the_first_images_of_each_class_are_chosen_and_none_is_opened():
    annotations = collect(annotated("a", "ab", "a", "b", "", "ab"), ["b"], "file")
    assert annotations.class_names == ("b", "a")
    assert annotations.count_images() == {"a": 4, "b": 3}
    chosen = annotations.select(limit=2)
    assert [(p.name, p.class_names) for p in chosen.images] == [
        ("0.png", ("a",)),
        ("1.png", ("a", "b")),
        ("3.png", ("b",)),
    ]
    assert chosen.count_images() == {"a": 2, "b": 2}
    assert annotations.select(["a"]).class_names == ("a",)
    with pytest.raises(DataError, match=r"Class 'c' is not annotated\. Annotated are: b, a\."):
        annotations.select(["a", "c"])
    with pytest.raises(NotFittedError):
        next(chosen.examples()["a"])


def test_examples_are_what_a_segmenter_fits():
    image, labels = two_things()
    shapes = tuple(Shape(name, lambda size, n=n: labels == n) for n, name in enumerate(["disc", "square"], 1))
    annotations = collect([AnnotatedImage("a.png", lambda: image, labels.shape, shapes)], [], "file")
    found = colour_segmenter(180).fit(annotations.examples()).predict(image)
    assert (found == labels).mean() > 0.95


def test_shapes_of_a_class_are_united():
    left = Shape("a", lambda size: np.arange(size[1]) < np.full((size[0], 1), 3))
    top = Shape("a", lambda size: np.arange(size[0])[:, None] < np.full(size[1], 2))
    _, masks = AnnotatedImage("a.png", lambda: scene()[0], None, (left, top)).read()
    np.testing.assert_array_equal(masks["a"].sum(), 90 * 3 + 120 * 2 - 6)


def test_sizes_are_those_of_upright_images(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    scene()[0].save(tmp_path / "a.jpg", exif=exif)  # 120 x 90 on its side
    annotated_image = AnnotatedImage("a.jpg", lambda: tmp_path / "a.jpg", (120, 90), (shape("a"),))
    assert annotated_image.read()[1]["a"].shape == (120, 90)
    with pytest.raises(MaskError, match=r"'a\.jpg' is 90 x 120 pixels when upright, but was .* 120 x 90"):
        AnnotatedImage("a.jpg", lambda: tmp_path / "a.jpg", (90, 120), (shape("a"),)).read()


def test_what_is_wrong_is_named():
    with pytest.raises(MaskError, match=r"'a\.png' shows no pixel of 'a'"):
        AnnotatedImage("a.png", lambda: scene()[0], None, (shape("a", False),)).read()

    def draw(size):
        raise MaskError("It has no outline.")

    with pytest.raises(MaskError, match=r"'a\.png', class 'b': It has no outline"):
        AnnotatedImage("a.png", lambda: scene()[0], None, (Shape("b", draw),)).read()
    with pytest.raises(DataError, match="annotates nothing"):
        collect(annotated("", ""), [], "file")
    for name in ("", " ", "a\nb"):
        with pytest.raises(DataError, match="object whose class has no name"):
            collect([AnnotatedImage("a.png", refuse, None, (shape(name),))], [], "file")
    assert isinstance(collect(annotated("a"), [], "file"), Annotations)


def test_images_are_found_by_path_then_by_name(tmp_path):
    for name in ("", "images", "images/deep", "images/one", "images/two"):
        (tmp_path / name).mkdir(exist_ok=True)
    for name in ("beside.png", "images/in.png", "images/deep/far.png"):
        (tmp_path / name).touch()
    for name in ("one", "two"):
        (tmp_path / "images" / name / "same.png").touch()
    (tmp_path / "labels").mkdir()
    locator = ImageLocator.for_file(tmp_path / "file.json", None)
    for name in ("beside.png", "in.png", "images/in.png", "images\\in.png", "labels/../beside.png"):
        assert locator.find(name).name == name.replace("\\", "/").rpartition("/")[2]
    assert locator.find("gone.png", "in.png") == tmp_path / "images" / "in.png"
    for name in (
        "far.png",
        "deep/far.png",
        "/home/me/far.png",
        "C:\\photos\\far.png",
        "http://a.b/far.png",
    ):
        assert locator.find(name) == tmp_path / "images" / "deep" / "far.png"
    with pytest.raises(ImageError, match=r"'same\.png' may be .*one.* or .*two"):
        locator.find("same.png")
    for name in ("", "gone.png", "deep/gone.png", "/etc/passwd", "\x00", "x" * 5000):
        with pytest.raises(ImageError, match="--support-images DIR"):
            locator.find(name)
    with pytest.raises(ImageError, match=r"'beside\.png' is not in .*images\. "):
        ImageLocator.for_file(tmp_path / "file.json", tmp_path / "images").find("beside.png")
