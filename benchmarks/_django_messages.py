"""Django's translated messages: short texts in many languages, some of them hard to tell apart. Which language is it?

The texts come from the wheel on PyPI (`pip download django --no-deps`). All translations of one source message are on one
side: those in the test translate messages of which training has seen no translation. Two languages may say the same, so that
nobody can be right always.
"""

import random
import re
import struct
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import penjing as pj
from _rows import HERE
from penjing.data._data import fingerprint

FAMILIES = {
    "Romance": "es es_AR es_MX gl pt pt_BR ca it ro",
    "Germanic": "da nb nn sv nl af",
    "Slavic": "cs sk hsb dsb hr bs sr_Latn sl uk be bg mk",
    "others": "tr az id ms ga gd",
}
LANGUAGES = [language for family in FAMILIES.values() for language in family.split()]
PARTS = (("train", 0.6), ("held out", 0.1), ("test", 0.3))  # shares of the source messages
PAD, UNKNOWN, CLASS = range(3)  # token ids
SPECIAL = ("[PAD]", "[UNK]", "[CLS]")
LONGEST = 48  # tokens of a message, the first of which is [CLS]; longer messages are cut
VOCABULARY = 4000  # word pieces
BATCH = 64
SORTED = 16  # batches within which messages are sorted by length, so that there is little padding
PLACEHOLDER = re.compile(r"%(\(\w+\))?[#0 +.\d-]*[a-zA-Z%]|\{\w*\}|<[^>]*>")  # what stands for values, and tags

Message = tuple[str, str, str]  # of which source message, in which language, the text


@cache
def data(wheel: Path, part: str = "test") -> pj.Data:
    """Returns the messages as batches; validation is the named part."""
    split = _split(_messages(wheel))
    tokenizer = _tokenizer(split["train"])
    pieces = {name: _encoded(tokenizer, messages) for name, messages in split.items()}
    train, judged = Messages(*pieces["train"], shuffled=True), Messages(*pieces[part])
    return pj.Data(
        train=train,
        calibration=None,
        validation=judged,
        task=pj.tasks.Classification(len(LANGUAGES), padding=PAD),
        name=f"django messages, {part}",
        classes=tuple(LANGUAGES),
        fingerprint=fingerprint(train.ids, train.labels, judged.ids, judged.labels),
    )


class Messages:
    """Batches `(token ids (N, positions), languages (N,))` of messages of about the same length, padded with `PAD`."""

    def __init__(self, ids: Sequence[Sequence[int]], labels: Sequence[int], *, shuffled: bool = False) -> None:
        self.ids, self.labels, self.shuffled, self.epoch = ids, labels, shuffled, 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the messages."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.ids) // BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = list(range(len(self.ids)))
        if self.shuffled:
            chance = random.Random(self.epoch)
            chance.shuffle(order)
            size = BATCH * SORTED
            chunks = [order[start : start + size] for start in range(0, len(order), size)]
            order = [one for chunk in chunks for one in sorted(chunk, key=lambda one: len(self.ids[one]))]
        else:
            order.sort(key=lambda one: len(self.ids[one]))
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        if self.shuffled:
            chance.shuffle(batches)
        for batch in batches:
            yield padded([self.ids[one] for one in batch]), torch.tensor([self.labels[one] for one in batch])


def padded(messages: Sequence[Sequence[int]], length: int = 0) -> Tensor:
    """Returns token ids `(messages, positions)`: as many positions as the longest message has, or `length` if that is more."""
    longest = max(length, *(len(message) for message in messages))
    return torch.tensor([[*message, *[PAD] * (longest - len(message))] for message in messages])


def _messages(wheel: Path) -> list[Message]:
    """Returns all messages, in an order of their own; those that aren't translated or hold no letters are left out."""
    found: dict[Message, None] = {}
    with zipfile.ZipFile(wheel) as files:
        for name in sorted(files.namelist()):
            path = name.split("/")
            if path[-1] != "django.mo" or path[-3] not in LANGUAGES:
                continue
            for source, text in _catalogue(files.read(name)).items():
                words = " ".join(PLACEHOLDER.sub(" ", text).split())
                if source and text != source and any(letter.isalpha() for letter in words):
                    found[source, path[-3], words] = None  # applications share messages
    return list(found)


def _catalogue(content: bytes) -> dict[str, str]:
    """Returns source messages and their translations of a file as `msgfmt` writes it; of plurals, the last form."""
    magic, _, count, sources, texts = struct.unpack_from("<5I", content)
    if magic != 0x950412DE:
        raise SystemExit("This isn't a catalogue of messages in the byte order that Django's wheel has.")

    def text(table: int, index: int) -> str:
        length, start = struct.unpack_from("<2I", content, table + 8 * index)
        return content[start : start + length].decode()

    return {text(sources, index): text(texts, index).split("\0")[-1] for index in range(count)}


def _split(messages: Sequence[Message]) -> dict[str, list[Message]]:
    """Returns the messages of each part."""
    sources = sorted({source for source, _, _ in messages})
    random.Random(0).shuffle(sources)
    share, part_of = 0.0, {}
    for part, more in PARTS:
        begin, share = round(share * len(sources)), share + more
        part_of |= dict.fromkeys(sources[begin : round(share * len(sources))], part)
    return {part: [one for one in messages if part_of[one[0]] == part] for part, _ in PARTS}


def _tokenizer(messages: Sequence[Message]) -> "Tokenizer":  # noqa: F821  imported where it is needed
    """Returns a tokenizer with the word pieces of these messages; made once, and then read from a file."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    file = HERE / "out" / "distillation_encoder_tokenizer.json"
    if not file.exists():
        tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL[UNKNOWN]))
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False, min_frequency=2
        )
        tokenizer.train_from_iterator((text for _, _, text in messages), trainer)
        file.parent.mkdir(exist_ok=True)
        tokenizer.save(str(file))
    return Tokenizer.from_file(str(file))


def _encoded(tokenizer: "Tokenizer", messages: Sequence[Message]) -> tuple[list[list[int]], list[int]]:  # noqa: F821
    """Returns the token ids and the language of each message."""
    ids = [[CLASS, *one.ids][:LONGEST] for one in tokenizer.encode_batch([text for _, _, text in messages])]
    return ids, [LANGUAGES.index(language) for _, language, _ in messages]
