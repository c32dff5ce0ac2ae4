"""The training of the methods on pairs: alignment data -> the groups of a preference session.

in:  a method on pairs, its context
out: PreferenceSession, whose groups are a chosen and a rejected response to one prompt
"""

from groundup.align.method import MethodContext
from groundup.align.preference_session import PreferenceGroup, PreferenceMethod, PreferenceSession
from groundup.align.response_pairs import response_pairs
from groundup.align.sequences import response_sequence
from groundup.core.records import Split


def pair_session(recipe: PreferenceMethod, context: MethodContext) -> PreferenceSession:
    """The training of `recipe` on the pairs of the context's data."""
    train, held_out = (_groups(recipe, context, split) for split in ("train", "held_out"))
    return PreferenceSession(recipe, context, train, held_out)


def _groups(recipe: PreferenceMethod, context: MethodContext, split: Split) -> list[PreferenceGroup]:
    made = recipe.made if split == "train" else recipe.held_out
    return [
        PreferenceGroup(
            (
                response_sequence(pair.prompt, pair.chosen, context.tokenizer),
                response_sequence(pair.prompt, pair.rejected, context.tokenizer),
            )
        )
        for pair in response_pairs(context.data, split, made, recipe.seed)
    ]
