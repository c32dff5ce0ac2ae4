"""A loud little model with random weights, and a chat with it."""

import pytest
import torch

from groundup.infer.engine import Engine
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.serve.conversation import Chat, ChatOptions
from groundup.tokens import bpe
from groundup.tokens.tokenizer import Tokenizer

CONTEXT = 48


@pytest.fixture
def chat() -> Chat:
    tokenizer = Tokenizer.from_merges(bpe.train(iter(["what is the answer to the question? " * 30]), 280))
    model = Decoder(DecoderConfig(tokenizer.vocab_size, 32, 1, 2, 2, 16, 64, max_seq_len=CONTEXT))
    model.init_weights(0)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(20)
        model.lm_head.weight.mul_(20)
    engine = Engine(model, {tokenizer.end_of_turn}, tokenizer.pad, CONTEXT)
    return Chat(engine, tokenizer, ChatOptions(max_tokens=8))
