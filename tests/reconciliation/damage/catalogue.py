"""Every kind of damage, and how one of each is drawn."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from reconciliation.damage.damages import Damage
from reconciliation.damage.damages_database import (
    ALTERATIONS,
    AddRow,
    AlterFile,
    AlterPayload,
    DropFile,
    DropRow,
    EditBoth,
    EditRow,
    ForgeFile,
    ForgeHead,
)
from reconciliation.damage.damages_lines import (
    AddLine,
    CutLineEnd,
    DropLine,
    EditEvent,
    MoveLine,
    NoJson,
    RepeatLine,
    Stranger,
    SwapLines,
)
from reconciliation.damage.damages_objects import (
    Add,
    AddTest,
    Delete,
    Duplicate,
    Empty,
    FlipBit,
    Garbage,
    LineEnd,
    Merge,
    Recompress,
    Rename,
    Swap,
    Truncate,
    WrongTrailer,
)
from reconciliation.damage.picture import Layout, packed

# Any number names an object, an event or a row of the ledger, in any world. Low ones come more
# often: they are of the same file, where one damage may hide another.
_some: Final = st.one_of(st.integers(0, 1), st.integers(0, 11))
_names: Final = st.sampled_from(
    [
        "stray/1.ndjson.gz", "stray/2.ndjson.gz", "stray/3.json", "stray/4.json", "stray/5.bak",
        "lead/0123456789abcdef01234567.json", "copy.ndjson.gz",
    ]
)  # fmt: skip
_no_events: Final = st.sampled_from([b"nonsense", b"{oops", b"[]", b'{"id": 5}', b'"\xff"'])
# Those of 8 letters leave an event as long as it was. No two kinds of edit come out alike.
_in_store: Final = st.sampled_from(["stored 1", "stored 2", "said otherwise in the store"])
_in_outbox: Final = st.sampled_from(["outbox 1", "outbox 2", "said otherwise in the outbox"])
_altered: Final = st.sampled_from(["altered1", "altered2", "altered behind its hash"])
_in_both: Final = st.sampled_from(["edited 1", "edited 2", "said otherwise everywhere"])

# What looks like the next member of a gzip file, and ends too early.
_MEMBER: Final = packed(b"")

KINDS: Final[dict[type[Damage], st.SearchStrategy[Damage]]] = {
    Delete: st.builds(Delete, _some),
    Truncate: st.builds(Truncate, _some, st.integers(0, 999)),
    Empty: st.builds(Empty, _some),
    FlipBit: st.builds(FlipBit, _some, st.integers(0, 2000), st.integers(0, 7)),
    WrongTrailer: st.builds(WrongTrailer, _some),
    Garbage: st.builds(Garbage, _some, st.sampled_from([b"garbage", _MEMBER[:3], _MEMBER[:-1]])),
    Recompress: st.builds(
        Recompress, _some, st.integers(0, 9), st.sampled_from([0, 1, 512]), st.integers(0, 900)
    ),
    Duplicate: st.builds(Duplicate, _some, _names),
    Rename: st.builds(Rename, _some, _names),
    Add: st.builds(Add, _some, _names, st.sampled_from([None, b"", b"nonsense"])),
    AddTest: st.builds(AddTest, _some),
    Swap: st.builds(Swap, _some, _some),
    LineEnd: st.builds(LineEnd, _some),
    Merge: st.builds(Merge, _some),
    EditEvent: st.builds(EditEvent, _some, _in_store),
    NoJson: st.builds(NoJson, _some, _no_events),
    Stranger: st.builds(Stranger, _some, _some),
    DropLine: st.builds(DropLine, _some),
    RepeatLine: st.builds(RepeatLine, _some, _some),
    MoveLine: st.builds(MoveLine, _some, _some),
    SwapLines: st.builds(SwapLines, _some),
    CutLineEnd: st.builds(CutLineEnd, _some),
    AddLine: st.builds(AddLine, _some, _some, st.one_of(_no_events, st.just(b""))),
    DropRow: st.builds(DropRow, _some),
    AddRow: st.builds(AddRow, _some),
    EditRow: st.builds(EditRow, _some, _in_outbox),
    AlterPayload: st.builds(AlterPayload, _some, _altered),
    EditBoth: st.builds(EditBoth, _some, _in_both),
    DropFile: st.builds(DropFile, _some),
    AlterFile: st.builds(AlterFile, _some, st.sampled_from(sorted(ALTERATIONS))),
    ForgeFile: st.builds(ForgeFile, _some),
    ForgeHead: st.builds(ForgeHead, _some),
}


def kinds(layout: Layout) -> list[type[Damage]]:
    """Those that can be done to a layout."""
    return [kind for kind in KINDS if layout in kind.layouts]


def one(layout: Layout) -> st.SearchStrategy[Damage]:
    """Any damage, each kind as often as any other."""
    return st.sampled_from(kinds(layout)).flatmap(KINDS.__getitem__)


def around(kind: type[Damage], layout: Layout) -> st.SearchStrategy[list[Damage]]:
    """One of a kind, with up to three others before it and behind it.

    Hypothesis is fond of what it drew before; asked kind by kind, it draws all of them.
    """
    others = st.lists(one(layout), max_size=3)
    return st.tuples(others, KINDS[kind], others).map(lambda each: [*each[0], each[1], *each[2]])
