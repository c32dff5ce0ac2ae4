"""Step `language`: language identification and selection.

in:  documents
out: language of every document (ISO 639 code, `und` where uncertain, `code` for source code); drops with
     `language_uncertain`, `language_not_kept`

Uses fastText's lid.176 (Joulin et al. 2016, https://arxiv.org/abs/1612.03651), compressed, from `models/`; nothing is
downloaded. The minimum confidence of 0.65 is FineWeb's for English (Penedo et al. 2024,
https://arxiv.org/abs/2406.17557). Two differences: text is lower-cased first, since the model misidentifies a third
of all-caps sentences; and only the beginning of a document is used. Accuracy per language:
docs/reference/languages.md.
"""

import difflib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from groundup.core.recipe import Recipe
from groundup.text import fasttext_model
from groundup.text.batch import DocumentBatch
from groundup.text.curate.types import FilterResult, Rule, apply_rules

MODEL = Path(__file__).parents[2] / "models" / "lid.176.ftz"
UNDETERMINED = "und"
"""ISO 639-2 code of an undetermined language."""
CODE = "code"
_CODES = (
    "af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de "
    "diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo "
    "io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms "
    "mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn "
    "sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf "
    "yi yo yue zh"
)
LANGUAGES = frozenset(_CODES.split())
"""Labels of the model: ISO 639-1 codes, else 639-3, with Wikipedia's exceptions (`als` is Alemannic)."""


class Language(Recipe):
    """Language of every document, and the languages to keep. Source code has none and is never dropped here."""

    keep: tuple[str, ...] = Field(default=(), description="languages to keep (`en`, `de`); none = all")
    min_confidence: float = Field(
        default=0.65,
        ge=0,
        le=1,
        description=(
            "confidence below which the language is unknown; such documents are dropped if `keep` is set"
        ),
    )
    drop_unknown: bool = Field(
        default=False, description="drop documents of unknown language also if `keep` is empty"
    )
    max_chars: int = Field(default=2048, ge=1, description="characters used, from the beginning")

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        return {"drop_unknown": "keep drops unknown languages already"} if self.keep else {}

    @field_validator("keep")
    @classmethod
    def _known_languages(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for code in value:
            if code not in LANGUAGES:
                near = difflib.get_close_matches(code, sorted(LANGUAGES), n=3, cutoff=0.5)
                values = {"code": code, "near": ", ".join(near) or "codes of two letters, as `en`"}
                raise PydanticCustomError("language", "unknown language `{code}`; near it: {near}", values)
        return value

    def rules(self) -> tuple[Rule, ...]:
        """Rule on the confidence, if it applies."""
        bound = Rule("language_uncertain", "confidence", at_least=self.min_confidence)
        return (bound,) if self.keep or self.drop_unknown else ()

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Identify the language and apply the rules."""
        prose = np.flatnonzero(~batch.is_code)
        texts = pc.utf8_slice_codeunits(batch.text.take(pa.array(prose)), 0, self.max_chars)
        predicted, probability = fasttext_model.predict(
            fasttext_model.load(MODEL), fasttext_model.lines(texts)
        )
        has_letters = pc.match_substring_regex(texts, r"\pL").to_numpy(zero_copy_only=False)
        confidence = np.full(batch.rows, np.nan)
        confidence[prose] = probability * has_letters  # the model is sure that some numbers are Basque
        guess = np.full(batch.rows, CODE, dtype=object)
        guess[prose] = predicted
        uncertain = confidence < self.min_confidence
        language = np.where(uncertain, UNDETERMINED, guess).tolist()
        result = apply_rules({"confidence": confidence}, self.rules(), batch.rows)
        reason, value = list(result.reason), list(result.value)
        kept = {*(self.keep or LANGUAGES), UNDETERMINED, CODE}
        for row, code in enumerate(language):
            if code not in kept:
                reason[row], value[row] = "language_not_kept", float(confidence[row])
        detail = guess.tolist()
        return FilterResult(reason, value, result.threshold, detail, None, result.metrics, language)
