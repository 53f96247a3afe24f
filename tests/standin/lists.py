"""How Kustomer gives long lists: page by page."""

import math
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from tests.standin.access import Call
from tests.standin.faults import Answer
from tests.standin.records import Resource
from tests.standin.refusals import refusal_at

# developer.kustomer.com/kustomer-api-docs/reference/getmessage gives 100 a page unless told. That it gives no more
# than these, whatever is asked for, is what clients report.
PAGE_SIZE = 100


@dataclass(frozen=True)
class Page:
    """One page of a list: its number and the last one's, both from 1, and how many items a page has."""

    number: int
    last: int
    size: int

    @property
    def items(self) -> slice:
        """Where its items stand in the whole list."""
        return slice((self.number - 1) * self.size, self.number * self.size)


def page_asked(query: str, total: int) -> Page:
    """Read which page of a list with `total` items a query asks for."""
    size = min(_number(query, "pageSize", PAGE_SIZE), PAGE_SIZE)
    return Page(_number(query, "page", 1), max(1, math.ceil(total / size)), size)


def listed(call: Call, path: str, items: list[Resource]) -> Answer:
    """Answer with a page of `items`, oldest first unless sort=desc, and with the paths of other pages."""
    page = page_asked(call.query, len(items))
    sort = parse_qs(call.query).get("sort", [""])[0]
    if sort == "desc":
        items = items[::-1]

    def link(at: int) -> str | None:
        target = f"{path}?page={at}&pageSize={page.size}" + (f"&sort={sort}" if sort else "")
        return target if 1 <= at <= page.last else None

    number = page.number
    links = {"self": number, "first": 1, "prev": number - 1, "next": number + 1, "last": page.last}
    answer: dict[str, Any] = {
        "data": items[page.items],
        "meta": {"page": number, "pageSize": page.size, "totalPages": page.last, "total": len(items)},
        "links": {name: link(at) for name, at in links.items()},
    }
    return Answer.of(200, answer)


def _number(query: str, name: str, default: int) -> int:
    """Read a whole number of at least 1 from the query."""
    given = parse_qs(query).get(name, [str(default)])[0]
    if not re.fullmatch("0*[1-9][0-9]{0,8}", given):
        raise refusal_at(400, {"source": {"parameter": name}, "code": "badparam", "title": "Invalid type"})
    return int(given)
