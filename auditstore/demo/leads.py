"""Fictional leads, the same ones for the same seed.

Nothing in them can reach anybody: 555-01xx telephone numbers, example.com and example.net
addresses, and addresses from the ranges that RFC 5737 keeps for documentation.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from auditstore.demo.object_ids import opaque

FIRST_NAMES = (
    "Ada", "Blaise", "Carl", "Dorothy", "Edsger", "Frances", "Grace", "Hedy", "Ivan", "Joan",
    "Katherine", "Leslie", "Mary", "Niklaus", "Ole-Johan", "Peter", "Radia", "Sofia", "Tim",
    "Zoë",
)  # fmt: skip
LAST_NAMES = (
    "Abernathy", "Bellweather", "Castellanos", "Dunmore", "Easterly", "Fairbanks", "Greenhalgh",
    "Hollowell", "Ibarra", "Jørgensen", "Kowalczyk", "Larkspur", "Montague", "Nakagawa", "O'Dell",
    "Pemberton", "Quigley", "Rosenthal", "Stonebridge", "Thistlewood",
)  # fmt: skip
STREETS = ("Sample Street", "Placeholder Avenue", "Specimen Boulevard", "Fixture Lane")
#: State, city, area code, first three digits of the postal code.
PLACES = (
    ("TX", "Austin", "512", "787"),
    ("TX", "Houston", "713", "770"),
    ("CA", "Sacramento", "916", "958"),
    ("FL", "Orlando", "407", "328"),
    ("OH", "Columbus", "614", "432"),
    ("GA", "Savannah", "912", "314"),
    ("NV", "Reno", "775", "895"),
)
INTERESTS = ("auto insurance", "home solar", "mortgage refinance", "education", "home security")


@dataclass(frozen=True, slots=True)
class Lead:
    """What a person typed into a form, as the source submitted it.

    ``phone`` is ten digits. ``source`` chooses one of the flow's sources, modulo their
    number. A lead with ``test`` set is marked in ``vars.lead`` and always accepted.
    """

    first_name: str
    last_name: str
    phone: str
    age: int
    street: str
    city: str
    state: str
    postal_code: str
    interest: str
    ip: str
    source: int = 0
    test: bool = False

    @property
    def email(self) -> str:
        """An address under example.com or example.net, which nobody owns."""
        letters = "".join(c for c in f"{self.first_name}.{self.last_name}".lower() if c.isascii())
        return f"{letters.replace(chr(39), '')}@example.{'net' if self.age % 2 else 'com'}"

    def typed(self, lead_id: str) -> dict[str, Any]:
        """``vars.lead``: every value as its type parsed it, with what was typed kept in raw."""
        area, exchange, line = self.phone[:3], self.phone[3:6], self.phone[6:]
        email = self.email
        user, _, host = email.partition("@")
        typed: dict[str, Any] = {
            "id": lead_id,
            "first_name": text(self.first_name),
            "last_name": text(self.last_name),
            "email": {
                "raw": email, "normal": email, "valid": True,
                "user": user, "domain": host, "host": host[:7], "tld": host[8:],
            },
            "phone_1": {
                "raw": f"({area}) {exchange}-{line}", "normal": self.phone, "valid": True,
                "country_code": "US", "area": area, "exchange": exchange, "line": line,
                "number": exchange + line, "extension": None, "type": "mobile",
            },
            "address_1": text(self.street),
            "city": text(self.city),
            "state": text(self.state),
            "postal_code": {
                "raw": self.postal_code, "normal": self.postal_code, "valid": True,
                "country_code": "US", "zip": self.postal_code, "four": None,
            },
            "age": {"raw": str(self.age), "normal": self.age, "valid": True},
            "interest": text(self.interest),
            "consent": {"raw": "yes", "normal": True, "valid": True},
            "click_id": text(opaque(f"{lead_id} click", 48)),
            "certificate_url": {
                "raw": f"https://certificates.example.com/{opaque(lead_id, 30)}", "valid": True,
            },
        }  # fmt: skip
        if self.test:
            typed["test"] = {"raw": "true", "normal": True, "valid": True}
        return typed


class LeadGenerator:
    """An endless supply of leads; the same seed gives the same ones in the same order.

    About one in seven lives where the reference flow does not buy, about one in ten is
    too young for it.
    """

    def __init__(self, seed: int) -> None:
        # Not for secrets: for the same leads tomorrow.
        self._random = random.Random(seed)  # noqa: S311 (reproducible, not secret)

    def next(self) -> Lead:
        """The next lead."""
        draw = self._random.random
        state, city, area, postal = PLACES[int(draw() * len(PLACES))]
        net = "192.0.2" if draw() < 0.5 else "198.51.100"
        return Lead(
            first_name=FIRST_NAMES[int(draw() * len(FIRST_NAMES))],
            last_name=LAST_NAMES[int(draw() * len(LAST_NAMES))],
            phone=f"{area}55501{int(draw() * 100):02d}",
            age=20 + int(draw() * 46),
            street=f"{1 + int(draw() * 9998)} {STREETS[int(draw() * len(STREETS))]}",
            city=city,
            state=state,
            postal_code=f"{postal}{int(draw() * 100):02d}",
            interest=INTERESTS[int(draw() * len(INTERESTS))],
            ip=f"{net}.{1 + int(draw() * 254)}",
            source=int(draw() * 2),
        )


#: The lead of ``auditstore stream test --lead``: always these values, always accepted.
TEST_LEAD = Lead(
    first_name="Test", last_name="Lead", phone="5125550100", age=42, street="1 Sample Street",
    city="Austin", state="TX", postal_code="78701", interest="home solar", ip="192.0.2.1",
    test=True,
)  # fmt: skip


def text(value: str) -> dict[str, Any]:
    """A typed value that needed no parsing."""
    return {"raw": value, "normal": value, "valid": True}
