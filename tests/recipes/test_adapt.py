"""Documents in, an adapted model out: better than its start or not written, whatever stops it on the way."""

import json

import pytest

from models import tiny
from recipes import village
from trine.curation.texts import canonical
from trine.data.examples import open_examples
from trine.errors import TrainingError, UnknownName, UsageError
from trine.evaluation.beir import read_beir
from trine.models.encoder import Encoder
from trine.recipes import adapt as recipe
from trine.recipes.adapt import adapt, balanced
from trine.recipes.adaptation import Adaptation
from trine.recipes.domain import Division
from trine.recipes.held_out import Part, texts_of
from trine.recipes.stages import Stage
from trine.training import checkpoints
from trine.types import Example

DIVISION = Division(held_out=Part(0.2, 20, 60), validation=Part(0.1, 10, 30), least_pairs=30)
LEARNING = {
    "stage1.steps": "50",
    "stage2.steps": "20",
    "batch_size": "32",
    "learning_rate": "3e-3",
    "dropout": "0.0",
}
SHORT = {**LEARNING, "stage1.steps": "4", "stage2.steps": "4", "batch_size": "8", "save_every": "2"}


@pytest.fixture(scope="module", autouse=True)
def quick_analyzer():
    """Morphemes take most of the time here, and decide nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("trine.evaluation.evaluate", "trine.curation.retrievers"):
            patch.setattr(f"{module}.default_analyzer", lambda: "bigram")
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model and documents."""
    folder = tmp_path_factory.mktemp("home")
    tiny.encoder("bert").save(folder / "start")
    village.write(folder / "docs")
    (folder / "docs" / "nowhere.md").symlink_to(folder / "docs" / "gone.md")
    return folder


@pytest.fixture
def job(home, tmp_path):
    def make(settings, *, out="out", **options):
        options = {"model": str(home / "start"), "division": DIVISION, **options}
        return Adaptation([str(home / "docs")], tmp_path / out, settings=settings, **options)

    return make


@pytest.fixture(scope="module")
def adapted(home):
    job = Adaptation(
        [str(home / "docs")], home / "out", model=str(home / "start"), division=DIVISION, settings=LEARNING
    )
    return adapt(job)


def test_a_model_learns_what_the_documents_say_between_the_lines(adapted):
    assert adapted.better
    assert adapted.gain.low > 0.2
    assert [item["path"][-10:] for item in adapted.skipped] == ["nowhere.md"]
    assert adapted.after.values["bm25"] == adapted.before.values["bm25"] < 0.1
    assert adapted.gain.mean == pytest.approx(
        adapted.after.values[adapted.system] - max(adapted.before.values[name] for name in adapted.before.own)
    )


def test_the_model_comes_with_its_record_and_the_data_stay(adapted, home):
    encoder = Encoder.load(home / "out")
    assert encoder.modes == ("dense", "sparse", "multi_vector")
    assert encoder.config.untrained == ()
    first, second = json.loads((home / "out" / "training.json").read_text(encoding="utf-8"))["stages"]
    assert (first["recipe"]["name"], second["recipe"]["name"]) == ("e5_pretrain_small", "bge_m3_small")
    assert first["start_fingerprint"] == Encoder.load(home / "start").fingerprint
    assert second["metrics"]["after"][adapted.system] == adapted.after.values[adapted.system]
    assert json.loads((home / "out" / "adapt.json").read_text(encoding="utf-8")) == adapted.to_dict()
    assert "stage 1" in (home / "out" / "README.md").read_text(encoding="utf-8").lower()
    assert not list(adapted.working.rglob("*.safetensors"))
    assert (adapted.working / "negatives" / "train.jsonl").is_file()


def test_no_text_that_decides_was_trained_on(adapted):
    spellings = {canonical(text) for text in texts_of(read_beir(adapted.working / "domain" / "held_out"))}
    assert len(spellings) > 40
    for name in ("domain", "filter", "negatives"):
        for one in open_examples(adapted.working / name / "train.jsonl"):
            texts = (one.query, *one.positives, *one.negatives)
            assert not spellings & {canonical(text) for text in texts}
    assert all(one.negatives for one in open_examples(adapted.working / "negatives" / "train.jsonl"))


def test_the_filter_and_the_negatives_report_what_they_did(adapted):
    filtered, mined = adapted.stages["filter"], adapted.stages["negatives"]
    assert set(filtered["sources"]) == {"title_passage", "heading_passage"}
    assert filtered["applied"]
    assert filtered["settings"]["top"] == 2
    assert filtered["kept"] == filtered["kept_pairs"]
    assert mined["settings"]["relative_margin"] == 0.05
    assert mined["retriever"] == "weighted(dense, bm25)"


def test_what_stops_it_costs_the_stage_it_stopped_and_no_more(job, monkeypatch):
    whole = adapt(job(SHORT, out="whole", keep_worse=True))
    again, told = job(SHORT, out="again", keep_worse=True), []

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "mine_negatives", interrupted)
    with pytest.raises(KeyboardInterrupt):
        adapt(again, tell=told.append)
    monkeypatch.undo()
    assert told[-1] == "mining hard negatives"
    real = checkpoints.write

    def full(root, step, checkpoint):
        if step == 4:
            raise TrainingError("No space left on device")
        return real(root, step, checkpoint)

    told.clear()
    monkeypatch.setattr(checkpoints, "write", full)
    with pytest.raises(TrainingError, match="step-00000002"):
        adapt(again, tell=told.append)
    monkeypatch.undo()
    assert told == ["mining hard negatives", "stage2: training 4 steps"]
    told.clear()
    resumed = adapt(again, tell=told.append)
    assert told == ["stage2: training 4 steps", "measuring the adapted model"]
    assert Encoder.load(resumed.folder).fingerprint == Encoder.load(whole.folder).fingerprint
    assert resumed.after == whole.after


def test_a_filter_that_drops_most_pairs_is_not_applied(home, adapted, tmp_path):
    work = recipe._Work(
        Adaptation([str(home / "docs")], tmp_path / "x", model=str(home / "start"), division=DIVISION), str
    )
    domain = Stage(adapted.working / "domain", {}, "domain", 0.0)
    found = work.filtered(domain, recipe._Teacher(None, work.model))
    assert found.facts["kept_pairs"] < found.facts["pairs"] / 2
    assert (found.facts["applied"], found.facts["kept"]) == (False, found.facts["pairs"])
    assert len(open_examples(found.folder / "train.jsonl")) == found.facts["pairs"]


def test_a_model_that_is_not_better_is_not_written_but_on_demand_and_then_says_so(job):
    settings = {**SHORT, "learning_rate": "1e-9"}
    refused = adapt(job(settings))
    assert not refused.better
    assert refused.folder is None
    assert not refused.target.exists()
    assert refused.stages["stage2"]["start"] == "start"  # stage 1 did no better on the validation documents
    assert json.loads((refused.working / "adapt.json").read_text(encoding="utf-8"))["better"] is False
    told = []
    kept = adapt(job(settings, keep_worse=True), tell=told.append)
    assert told == []
    assert kept.folder == refused.target
    assert json.loads((kept.folder / "adapt.json").read_text(encoding="utf-8"))["better"] is False
    assert "not better than its start" in (kept.folder / "README.md").read_text(encoding="utf-8")


def test_steps_fit_the_time_and_are_chosen_once(job):
    settings = {key: value for key, value in SHORT.items() if not key.endswith("steps")}
    told = []
    found = adapt(job(settings, minutes=0.01, keep_worse=True), tell=told.append)
    assert found.stages["stage1"]["steps"] == found.stages["stage2"]["steps"] == 10
    plan = json.loads((found.working / "stage1.plan" / "done.json").read_text(encoding="utf-8"))["facts"]
    assert plan["fitted"] == {"batch_size": 8, "steps": 10}
    assert plan["pace"]["tokens_per_second"] > 0
    assert [text for text in told if "how fast" in text] == [f"stage{n}: how fast it trains here" for n in (1, 2)]


def test_wrong_settings_are_told_before_any_work(job):
    with pytest.raises(UnknownName, match="learning_rate"):
        adapt(job({"stage2.learnin_rate": "1"}))
    with pytest.raises(UsageError, match="self_distillation"):
        adapt(job({"stage2.modes": "dense"}))
    with pytest.raises(UsageError, match="reads 48"):
        adapt(job({"stage2.passage_length": "64"}))
    with pytest.raises(UsageError, match="above 0"):
        adapt(job({}, minutes=0))
    taken = job({}, out="taken")
    taken.out.mkdir()
    (taken.out / "file").touch()
    with pytest.raises(UsageError, match="not empty"):
        adapt(taken)
    assert not list(taken.out.parent.glob("*.training"))


class Fixed:
    """The same scores for every query."""

    def __init__(self, name, scores):
        self.name, self.scores, self.passages = name, scores, ["a", "b", "c"]

    def rows(self, queries):
        yield from (self.scores for _ in queries)


def test_retrievers_are_weighed_by_the_scores_of_answers():
    nan = float("nan")
    parts = [Fixed("dense", [0.5, 0.25, 0.1]), Fixed("bm25", [30.0, nan, 3.0]), Fixed("sparse", [nan, nan, nan])]
    examples = [Example("x", ("A",)), Example("y", ("b",)), Example("z", ("elsewhere",))]
    assert balanced(parts, examples) == pytest.approx({"dense": 1 / 0.375, "bm25": 1 / 15, "sparse": 1.0})
