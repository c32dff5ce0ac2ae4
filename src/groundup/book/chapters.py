"""A run's story -> the volume: title page, chapters in the order of the river, appendix.

in:  a `Story`, the title and the author, the resolved blueprint
out: a `Volume`, which both renderers print
"""

from dataclasses import replace

from groundup.book.align_chapters import align_chapters
from groundup.book.closing_chapters import appendix, evaluation_chapter, verdict_chapter
from groundup.book.content import Fact, Volume
from groundup.book.data_chapters import tokenizer_chapter, what_went_in
from groundup.book.figures import emblem_svg
from groundup.book.format import count, duration, is_number, number, short, size, visible
from groundup.book.load_run import LoadedRun
from groundup.book.model_chapters import architecture_chapter, pretrain_chapter

_STEP_WORDS = {
    "sft": "taught to answer questions",
    "reward": "given a judge",
    "ppo": "improved by reinforcement from its own answers",
}


def volume(story: LoadedRun, title: str, author: str, blueprint: str) -> Volume:
    """The whole book."""
    chapters = [
        what_went_in(story),
        tokenizer_chapter(story),
        architecture_chapter(story),
        pretrain_chapter(story),
        *align_chapters(story),
        evaluation_chapter(story),
        verdict_chapter(story),
    ]
    present = [chapter for chapter in chapters if chapter is not None]
    numbered = [replace(chapter, number=index) for index, chapter in enumerate(present, 1)]
    return Volume(
        title=visible(title),
        subtitle="the making of a language model",
        author=visible(author),
        abstract=abstract(story, visible(title)),
        emblem=emblem_svg(_losses(story)),
        facts=portrait(story),
        colophon=_colophon(story),
        chapters=(*numbered, appendix(story, blueprint)),
    )


def abstract(story: LoadedRun, title: str) -> str:
    """What was built, in one paragraph of plain words."""
    kept, parameters = story.metrics("curate"), story.metrics("pretrain").get("parameters")
    words = f"{title} is a language model"
    if is_number(parameters):
        words += f" of {short(parameters)} parameters"
    if is_number(kept.get("documents_kept")):
        words += f", built from nothing but {count(kept['documents_kept'])} documents"
        words += f" ({size(kept.get('bytes_kept'))} of text)"
    words += "."
    steps = [_STEP_WORDS[made.stage] for made in story.align_steps()]
    learnt = ["taught to continue text", *dict.fromkeys(steps)]
    spoken = ", ".join(learnt[:-1]) + " and " + learnt[-1] if len(learnt) > 1 else learnt[0]
    words += f" It was {spoken}, all in {duration(story.seconds)} on {_machine(story)}."
    return words + " This book tells how, and how well it works."


def portrait(story: LoadedRun) -> tuple[Fact, ...]:
    """The model in six numbers; those that were not measured are left out."""
    pretrain, scores = story.metrics("pretrain"), story.metrics("evaluate")
    bits = scores.get("base_bpb", pretrain.get("val_bpb"))
    facts = [
        (pretrain.get("parameters"), Fact(short(pretrain.get("parameters")), "parameters")),
        (story.metrics("curate").get("documents_kept"),
         Fact(count(story.metrics("curate").get("documents_kept")), "documents")),
        (pretrain.get("tokens"), Fact(short(pretrain.get("tokens")), "tokens of training")),
        (story.seconds, Fact(duration(story.seconds), "from text to book")),
        (bits, Fact(number(bits), "bits per unseen byte")),
        (scores.get("chat_chrf"), Fact(number(scores.get("chat_chrf"), 1), "chrF of its answers, of 100")),
    ]  # fmt: skip
    return tuple(fact for value, fact in facts if is_number(value))


def _losses(story: LoadedRun) -> list[float]:
    made = story.first("pretrain")
    return [entry["loss"] for entry in made.log if is_number(entry.get("loss"))] if made else []


def _machine(story: LoadedRun) -> str:
    made = story.first("pretrain") or story.made[-1]
    said = made.manifest.get("environment") or {}
    name = str(said.get("gpu") or said.get("cpu") or "one machine")
    cores = said.get("cores")
    return visible(name) + (f" ({cores} cores)" if cores and not said.get("gpu") else "")


def _colophon(story: LoadedRun) -> str:
    made = story.last("pretrain") or story.made[-1]
    libraries = (made.manifest.get("environment") or {}).get("libraries") or {}
    version = f" {libraries['groundup']}" if "groundup" in libraries else ""
    return visible(
        f"Written by groundup{version} from the run's own records. Set in Libertinus Serif by typst."
    )
