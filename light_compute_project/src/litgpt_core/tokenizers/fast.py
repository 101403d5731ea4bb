"""gigatoken in place of the `tokenizers` library, where it gives the same ids: ten to a hundred times as fast.

It knows byte-level BPE with the words of GPT-2, Llama 3, Qwen 2 and the like, not our `light` ones. It is young, so it
is believed only as far as it was compared: before the first document on a sample of the corpus and on odd texts, and
afterwards on every 256th document. Texts that spell an added token go to the reference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from litgpt_core.core.errors import TokenizerError

logger = logging.getLogger(__name__)

Ids = npt.NDArray[np.unsignedinteger]
Reference = Callable[[Sequence[str]], list[list[int]]]

CHECKED_EVERY = 256
"""Of so many documents, one is encoded by the reference as well."""
ODD_TEXTS = (
    *("", " ", "\n", "\r\n", "\t\t x", "a  b   c    ", "\0", "\ufeffx", "e\u0301", "ﬁ ½ Ⅷ ²", "\u200d\u200b\u00a0"),
    *(
        "I'LL we've don't 's 'S",
        "1234567 3.14 1,000 ١٢٣ 一二三",
        "naïve Straße ΑΒΓ абв",
        "日本語と한국어",
        "🙂👩‍👩‍👧‍👦🇩🇪",
    ),
    *("if x_1 == {}:\n    return\n\n\n", "<a href='#'>&nbsp;</a>", "....!!!???", "\u2028\u2029\x85", "ABCdef" * 50),
)


class FastEncoder:
    """Encodes documents by gigatoken.

    Args:
        engine: gigatoken's tokenizer.
        reference: The tokenizer that decides, for texts as plain text.
        names: Spellings of added tokens.
    """

    def __init__(self, engine: Any, reference: Reference, *, names: frozenset[str]) -> None:
        self._engine, self._reference, self._names = engine, reference, names
        self._seen = 0

    @classmethod
    def load(cls, definition: bytes, reference: Reference, *, names: frozenset[str], sample: Sequence[str]) -> Any:
        """One that has reproduced the reference's ids on a sample and on odd texts; None, with a log line, else."""
        try:
            import gigatoken

            engine = gigatoken.Tokenizer.from_json(definition)
        except ImportError:
            logger.info("gigatoken is not installed (pip install 'light-compute-project[fast]'): the reference is used")
            return None
        except Exception as error:  # it raises RuntimeError, ValueError and others for what it does not know
            logger.info("gigatoken does not know this tokenizer, the reference is used: %s", str(error)[:200])
            return None
        found = cls(engine, reference, names=names)
        texts = [text for text in (*ODD_TEXTS, *sample) if not found._spells(text)]
        for text, expected in zip(texts, reference(texts), strict=True):
            if found._ids(text).tolist() != expected:
                logger.warning("gigatoken gives other ids for %.60r: the reference is used", text)
                return None
        return found

    def arrays(self, texts: Sequence[str]) -> Iterator[Ids]:
        """The ids of each text, shape (n,).

        Raises:
            TokenizerError: A document that was compared has other ids.
        """
        for text in texts:
            if self._spells(text):
                yield np.array(self._reference([text])[0], dtype=np.uint32)
                continue
            ids = self._ids(text)
            self._seen += 1
            if self._seen % CHECKED_EVERY == 1 and ids.tolist() != self._reference([text])[0]:
                raise TokenizerError(
                    f"gigatoken gives other ids than the reference for a document that begins with {text[:60]!r}",
                    needed="the same ids",
                    fix="data.fast_tokenizer=never, and remove the unfinished folder .NAME-*.work of data.cache_dir",
                )
            yield ids

    def _spells(self, text: str) -> bool:
        return any(name in text for name in self._names)

    def _ids(self, text: str) -> Ids:
        ids: Ids = self._engine.encode(text)
        return ids
