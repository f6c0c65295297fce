from pipeline.ingest import isolated
from pipeline.ingest.images import read_images
from pipeline.ingest.isolated import parse_each
from pipeline.safe_parse import Limits, Outcome

LIMITS = Limits(20, 3000)


def test_every_item_gets_its_own_outcome_in_order(inputs):
    paths = [inputs.image(f"{number}.png", seed=number) for number in range(5)]
    paths[2].write_bytes(b"broken")
    outcomes = list(parse_each(read_images, paths, LIMITS, chunk=2))
    assert [outcome.task for outcome in outcomes] == paths
    assert [outcome.refusal and outcome.refusal.reason for outcome in outcomes] == [
        None,
        None,
        "UNREADABLE",
        None,
        None,
    ]


def test_items_of_a_chunk_that_kills_its_process_are_tried_alone(monkeypatch):
    def one_process(parse, tasks, limits):
        """Stands in for the child: a chunk with the bad item dies as a whole."""
        for task in tasks:
            if "bad" in task:
                yield Outcome(task, None, isolated.QuarantineError("CRASHED", "the parser died", "advice"))
            else:
                yield Outcome(task, [item.upper() for item in task], None)

    monkeypatch.setattr(isolated, "parse_all", one_process)
    outcomes = list(parse_each(str, ["a", "bad", "b", "c"], LIMITS, chunk=3))
    assert [(outcome.task, outcome.result) for outcome in outcomes] == [
        ("a", "A"),
        ("bad", None),
        ("b", "B"),
        ("c", "C"),
    ]
    assert outcomes[1].refusal.reason == "CRASHED"
