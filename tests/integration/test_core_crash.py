"""A sample of the campaign of crashes, and logs that its judge must refuse."""

from pathlib import Path
from typing import Any

from tests.drill.crash import kills, log_faults


async def test_a_killed_core_signs_the_rest_with_the_same_sad(tmp_path: Path) -> None:
    result = await kills(tmp_path, 5, count=2)
    assert result["held"], result


def test_the_judge_refuses_doubled_and_dangling_leaves() -> None:
    def leaf(tag: str, name: str, **facts: Any) -> dict[str, Any]:
        return {"tag": tag, "id": name, "facts": {"cid": "c", "item": 1, **facts}}

    intent, complete = leaf("INTENT", "i"), leaf("COMPLETE", "c", intent="i")
    assert log_faults([intent, complete]) == []
    assert (
        log_faults([intent, leaf("ABORTED", "a", intent="i"), leaf("INTENT", "j"), leaf("COMPLETE", "c", intent="j")])
        == []
    )
    assert log_faults([intent]) == ["an INTENT ended 0 times"]
    assert log_faults([complete]) == ["an end without INTENT"]
    assert log_faults([intent, complete, complete]) == ["an INTENT ended 2 times", "item 1 was completed 2 times"]
