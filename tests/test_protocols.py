import numpy as np
import pytest

from kshot.data.protocols import BAM_SEEDS, PROTOCOLS, default_protocol, preset
from kshot.errors import DataError


def test_presets_are_the_published_protocols():
    hsnet = preset("hsnet", "pascal")
    assert (hsnet.num_episodes, hsnet.seeds, hsnet.image_size) == (1000, (0,), 400)
    assert (hsnet.fit, hsnet.scored_at) == ("squash", "network")
    assert preset("hsnet", "fss1000").num_episodes == 2400
    bam = preset("bam", "coco")
    assert (bam.num_episodes, len(bam.seeds), bam.image_size) == (1000, 5, 641)
    assert (bam.fit, bam.scored_at) == ("pad", "original")
    assert preset("bam", "pascal").image_size == 473
    assert [preset("pfenet", b).num_episodes for b in ("pascal", "coco")] == [5000, 20_000]
    assert preset("pfenet", "pascal").seeds == (321,)
    assert preset("balanced", "folder").image_size is None


def test_bams_seeds_are_drawn_as_bam_draws_them():
    assert tuple(np.random.RandomState(123).randint(0, 1000, 5)) == BAM_SEEDS


def test_what_does_not_exist_is_an_error():
    with pytest.raises(DataError, match="no protocol 'panet'"):
        preset("panet", "pascal")
    with pytest.raises(DataError, match="pascal and coco only"):
        preset("bam", "fss1000")


def test_defaults():
    assert default_protocol("coco") == "hsnet"
    assert default_protocol("folder") == default_protocol("coco-mini-60") == "balanced"
    assert {preset(name, "pascal").name for name in PROTOCOLS} == set(PROTOCOLS)
