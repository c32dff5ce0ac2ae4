"""fastText classifiers applied to batches of texts (Joulin et al. 2016, https://arxiv.org/abs/1607.01759).

in:  texts as one Arrow array
out: one-line texts as fastText tokenizes them; the most likely label of each, and its probability

fastText reads a text as one line of white-space separated tokens. The lines built here never contain fastText's own
markers (`__label__x`, `</s>`).
"""

from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from groundup.core.errors import DataError

LABEL = "__label__"
_SPACES = r"[\n\x{a0}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
"""White space that fastText doesn't treat as such, and the line feed, which would end the text."""
_ONE_TOKEN = r"([[:punct:]\pP\pS\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"
"""Punctuation, and characters of scripts without spaces between words."""
_PUT_RIGHT = "Put it right with: pip install --force-reinstall --no-deps fasttext-community"


def binding(to_train: bool = False) -> Any:
    """The module `fasttext`. Raises DataError if the installed one is unsuitable.

    Several packages provide a module of this name. fasttext-predict can't train or predict in batches. fastText 0.9.2
    with one thread initialises a tenth of the weights and leaves the rest uninitialised, see
    https://github.com/facebookresearch/fastText/issues/1061: runs differ, and some end in NaN.
    """
    import fasttext

    if not hasattr(fasttext, "train_supervised"):
        raise DataError(f"fasttext: the installed module can only predict, one text at a time. {_PUT_RIGHT}")
    if to_train and not is_installed("fasttext-community"):
        raise DataError(f"fasttext: the installed module doesn't train the same model twice. {_PUT_RIGHT}")
    return fasttext


def is_installed(name: str) -> bool:
    """Whether a package is installed."""
    return next(iter(distributions(name=name)), None) is not None


@lru_cache(maxsize=8)
def load(path: Path) -> Any:
    """The model in a file, loaded once per process."""
    return binding().load_model(str(path))


def lines(texts: Any) -> list[str]:
    """Texts of an Arrow array, lower-cased and on one line."""
    one_line = pc.replace_substring_regex(pc.utf8_lower(texts), _SPACES, " ")
    return _listed(pc.replace_substring(one_line, "</s>", " "))


def tokens(texts: Any) -> list[str]:
    """Like `lines`, with punctuation marks and characters of unspaced scripts as separate tokens.

    This is the preparation used by fastText's authors; no `__label__` or `</s>` survives it.
    """
    apart = pc.replace_substring_regex(pc.utf8_lower(texts), _ONE_TOKEN, r" \1 ")
    return _listed(pc.replace_substring_regex(apart, _SPACES, " "))


def predict(model: Any, one_liners: list[str]) -> tuple[NDArray[np.str_], NDArray[np.float64]]:
    """[texts], [texts]: most likely label of each line and its probability; "" and 0 for lines without tokens."""
    if not one_liners:
        return np.zeros(0, np.str_), np.zeros(0)
    labels, probabilities = model.predict(one_liners)
    names = np.array([predicted[0].removeprefix(LABEL) if predicted else "" for predicted in labels], np.str_)
    values = np.array(
        [probability[0] if len(probability) else 0.0 for probability in probabilities], np.float64
    )
    return names, np.clip(values, 0.0, 1.0)  # a softmax in 32 bits can end a little above 1


def _listed(texts: Any) -> list[str]:
    listed: list[Any] = texts.to_pylist()
    return listed
