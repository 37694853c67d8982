import numpy as np
import pytest
import torch
from make_data import coloured_scene
from PIL import Image

from kshot.training.augment import (
    STRONG,
    ColorJitter,
    CropAugmentation,
    ImageKind,
    View,
    apply_augmentation,
    apply_color_jitter,
    apply_kind,
    apply_view,
    draw_augmentation,
    draw_kind,
    draw_view,
    to_tensor,
)

IDENTITY = CropAugmentation(scale=1.0, degrees=0.0, blur=0.0, flip=False, left=0.0, top=0.0)


def is_red(image):
    return (image[0] > 0.5) & (image[1] < 0.4)


@pytest.mark.parametrize("seed", range(12))
def test_labels_follow_the_image(seed):
    pil_image, labels = coloured_scene([0], 96, 72)
    image, changed = apply_augmentation(pil_image, labels, draw_augmentation((seed,), blur=0.0), 64)
    assert image.shape == (3, 64, 64)
    assert changed.shape == (64, 64)
    known = changed != 255
    agree = is_red(image)[known] == (changed[known] == 1)
    assert agree.float().mean() > 0.97  # all but the object's blended edge
    assert known.any()


def test_without_changes_the_shorter_side_fills_the_crop():
    pil_image, labels = coloured_scene([0, 1], 80, 40)
    image, changed = apply_augmentation(pil_image, labels, IDENTITY, 40)
    np.testing.assert_array_equal(changed.numpy(), labels[:, :40])
    torch.testing.assert_close(image, torch.from_numpy(np.array(pil_image)).permute(2, 0, 1)[..., :40] / 255)


def test_outside_of_the_image_is_the_mean_colour_without_a_label():
    pil_image, labels = coloured_scene([0], 40, 40)
    image, changed = apply_augmentation(
        pil_image, labels, IDENTITY._replace(scale=0.5, left=0.5, top=0.5), 40
    )
    assert (changed[:10] == 255).all()
    assert (changed[30:] == 255).all()
    assert (changed[10:30, 10:30] != 255).all()
    torch.testing.assert_close(image[:, 0, 0], torch.tensor([124, 116, 104]) / 255)


def test_flips_and_turns_move_both():
    pil_image, labels = coloured_scene([0, 1], 40, 40)
    _, plain = apply_augmentation(pil_image, labels, IDENTITY, 40)
    _, flipped = apply_augmentation(pil_image, labels, IDENTITY._replace(flip=True), 40)
    torch.testing.assert_close(flipped, plain.flip(-1))
    _, turned = apply_augmentation(pil_image, labels, IDENTITY._replace(degrees=90.0), 40)
    torch.testing.assert_close(turned, plain.rot90())


def test_changes_depend_on_their_key_alone_and_keep_their_ranges():
    drawn = [draw_augmentation((5, n)) for n in range(400)]
    assert drawn == [draw_augmentation((5, n)) for n in range(400)]
    assert len(set(drawn)) == 400
    assert all(0.5 <= c.scale <= 2 and abs(c.degrees) <= 10 and 0 <= c.left < 1 for c in drawn)
    assert 150 < sum(c.flip for c in drawn) < 250
    assert 150 < sum(c.blur > 0 for c in drawn) < 250


def test_a_view_without_changes_is_the_squashed_image():
    pil_image, labels = coloured_scene([0, 1], 80, 40)
    seen, mask = apply_view(pil_image, labels, View(), 64)
    np.testing.assert_array_equal(seen, pil_image.resize((64, 64), Image.Resampling.BILINEAR))
    small = Image.fromarray(labels).resize((64, 64), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(mask, small)


@pytest.mark.parametrize("seed", range(12))
def test_labels_follow_the_image_in_any_view(seed):
    pil_image, labels = coloured_scene([0], 96, 72)
    view = draw_view(np.random.default_rng(seed), STRONG._replace(color=0.0))
    seen, mask = apply_view(pil_image, labels, view._replace(color=ColorJitter()), 64)
    assert mask.shape == (64, 64)
    known = mask != 255
    agree = is_red(to_tensor(seen)).numpy()[known] == (mask[known] == 1)
    assert agree.mean() > 0.95  # all but the object's blended edge


def test_colours_change_as_they_say():
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    assert apply_color_jitter(grey, ColorJitter()).getpixel((0, 0)) == (100, 100, 100)
    assert apply_color_jitter(grey, ColorJitter(brightness=1.5)).getpixel((0, 0)) == (150, 150, 150)
    assert apply_color_jitter(grey, ColorJitter(gamma=2.0)).getpixel((0, 0)) == (39, 39, 39)
    red = Image.new("RGB", (8, 8), (200, 20, 20))
    r, g, b = apply_color_jitter(red, ColorJitter(hue=1 / 3)).getpixel((0, 0))
    assert g > 190
    assert max(r, b) < 30
    noisy = [
        np.asarray(apply_color_jitter(grey, ColorJitter(noise=9.0, noise_key=k))).astype(int)
        for k in (1, 1, 2)
    ]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert (noisy[0] != noisy[2]).any()
    assert 5 < noisy[0].std() < 13


def test_views_depend_on_the_generator_alone_and_keep_their_ranges():
    drawn = [draw_view(np.random.default_rng(n), STRONG) for n in range(300)]
    assert drawn == [draw_view(np.random.default_rng(n), STRONG) for n in range(300)]
    low, high = STRONG.scale
    assert all(low <= v.scale <= high and abs(v.degrees) <= STRONG.degrees for v in drawn)
    assert all(1 / STRONG.stretch <= v.stretch <= STRONG.stretch for v in drawn)


def test_images_become_grey_or_negatives():
    red = Image.new("RGB", (8, 8), (200, 20, 20))
    assert apply_kind(red, ImageKind()).getpixel((0, 0)) == (200, 20, 20)
    assert len(set(apply_kind(red, ImageKind(grey=True)).getpixel((0, 0)))) == 1
    assert apply_kind(red, ImageKind(negative=True)).getpixel((0, 0)) == (55, 235, 235)
    drawn = [draw_kind(np.random.default_rng(n)) for n in range(300)]
    assert 30 < sum(kind.grey for kind in drawn) < 90
    assert 10 < sum(kind.negative for kind in drawn) < 60
