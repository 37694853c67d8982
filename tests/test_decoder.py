import torch

from kshot.models.decoder import Decoder


def test_a_decoder_doubles_the_size_and_gives_two_logits():
    assert Decoder(128)(torch.randn(2, 128, 5, 7)).shape == (2, 2, 10, 14)
    assert Decoder(256)(torch.randn(1, 256, 1, 1)).shape == (1, 2, 2, 2)


def test_decoders_have_the_published_number_of_weights():
    count = {c: sum(p.numel() for p in Decoder(c).parameters()) for c in (128, 256)}
    assert count[256] == 406_914  # with the fusion's three, two-pass adds 406,917 to HSNet
    assert count[256] - count[128] == 128 * 128 * 9
