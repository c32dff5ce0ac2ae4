"""The memory estimate is an upper bound on what a training step keeps."""

import pytest

from groundup.core.runtime import ActivationCheckpointing
from groundup.model.decoder import Decoder
from groundup.parallel.memory_estimate import tokens_that_fit
from parallel.test_activation_checkpoint import CONFIG, TOKENS, step


@pytest.mark.parametrize("how", ["none", "selective", "full"])
def test_memory_is_estimated_from_above(how: ActivationCheckpointing) -> None:
    parameters = sum(p.numel() for p in Decoder(CONFIG).parameters())
    memory = 20 * parameters + step(how)[1]
    assert tokens_that_fit(CONFIG, how, memory) <= TOKENS
    assert tokens_that_fit(CONFIG, how, 20 * parameters + 10 * step("none")[1]) > TOKENS


def test_no_token_fits_where_the_weights_do_not() -> None:
    assert tokens_that_fit(CONFIG, "full", 1000) == 0
