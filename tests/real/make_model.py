"""Make the model that the real server serves: a tiny random Llama and a tokenizer of made-up words.

Run by the environment that holds vLLM: `.venv-vllm/bin/python tests/real/make_model.py FOLDER`. Nothing is
downloaded and nothing is learned: the model answers noise, of known length, which is all that counting needs.
"""

import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

VOCABULARY = 1000
SPECIAL_TOKENS = ("<s>", "</s>", "<pad>")
CHAT_TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}<s>assistant: "
SYLLABLES = ("ba", "ce", "di", "fo", "gu", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "wo", "zu")


def made_up_sentences(count: int, seed: int) -> list[str]:
    """Return sentences of words that no language has, the same ones for the same seed."""
    chance = random.Random(seed)
    words = ["".join(chance.choices(SYLLABLES, k=chance.randint(1, 4))) for _ in range(2000)]
    return [" ".join(chance.choices(words, k=12)) for _ in range(count)]


def tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of exactly `VOCABULARY` tokens, so that any text can be encoded."""
    byte_pairs = Tokenizer(models.BPE())
    byte_pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_pairs.decoder = decoders.ByteLevel()
    byte_pairs.train_from_iterator(
        made_up_sentences(4000, seed=1),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if byte_pairs.get_vocab_size() != VOCABULARY:
        raise SystemExit(
            f"the tokenizer has {byte_pairs.get_vocab_size()} tokens, not {VOCABULARY}: train on more words"
        )
    begin, end, padding = SPECIAL_TOKENS
    fast = PreTrainedTokenizerFast(
        tokenizer_object=byte_pairs, bos_token=begin, eos_token=end, pad_token=padding
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def model() -> LlamaForCausalLM:
    """Return two layers of noise, always the same."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
            tie_word_embeddings=False,
        )
    )


def main() -> None:
    """Write model and tokenizer into the folder named on the command line."""
    folder = Path(sys.argv[1])
    logging.disable_progress_bar()
    model().save_pretrained(folder)
    tokenizer().save_pretrained(folder)


if __name__ == "__main__":
    main()
