"""fastText's linear classifiers, a batch of texts at a time (Joulin et al. 2016, https://arxiv.org/abs/1607.01759).

in:  texts as one Arrow array
out: lines as fastText counts their tokens; the likeliest label of each, and its probability

fastText reads a text as one line of tokens between white space. What it would take for its own marks (`__label__x`,
`</s>`) can't occur in the lines made here of somebody's text.
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
"""White space that isn't white space to fastText, and the line feed, which would end the text."""
_ONE_TOKEN = r"([[:punct:]\pP\pS\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"
"""Punctuation, and characters of the scripts without spaces between words."""
_PUT_RIGHT = "Put it right with: pip install --force-reinstall --no-deps fasttext-community"


def binding(to_train: bool = False) -> Any:
    """The module `fasttext`. Raises DataError if the one installed can't do what is asked.

    Several packages bring a module of this name. fasttext-predict can't train or take a batch. fastText 0.9.2 with
    one thread fills a tenth of the weights and leaves the others as the memory happens to be, see
    https://github.com/facebookresearch/fastText/issues/1061: no two runs agree, and some end in NaN.
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
    """The model in a file, once per process."""
    return binding().load_model(str(path))


def lines(texts: Any) -> list[str]:
    """Each text of an Arrow array in lower case and on one line, its words as they are."""
    one_line = pc.replace_substring_regex(pc.utf8_lower(texts), _SPACES, " ")
    return _listed(pc.replace_substring(one_line, "</s>", " "))


def tokens(texts: Any) -> list[str]:
    """Like `lines`, but punctuation marks and characters of unspaced scripts are tokens of their own.

    That is how fastText's authors prepare text for classification; it leaves neither `__label__` nor `</s>` whole.
    """
    apart = pc.replace_substring_regex(pc.utf8_lower(texts), _ONE_TOKEN, r" \1 ")
    return _listed(pc.replace_substring_regex(apart, _SPACES, " "))


def predict(model: Any, one_liners: list[str]) -> tuple[NDArray[np.str_], NDArray[np.float64]]:
    """[texts], [texts]: the likeliest label of each line and its probability; "" and 0 where it has no token."""
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
