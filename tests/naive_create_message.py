"""What `make bench` compares with: the Hub's TypeScript script for this call, put into Python line by line.

https://hub.windmill.dev/scripts/kustomer/16470
"""

from typing import Any

import requests


def main(auth: dict[str, Any], body: dict[str, Any]) -> Any:
    """Post the body as it is; raise `"<status> <text>"` unless the answer is a success."""
    base = auth.get("baseUrl") or "https://api.kustomerapp.com"
    response = requests.post(  # noqa: S113 - the original sets no timeout either
        f"{base}/v1/messages", json=body, headers={"Authorization": f"Bearer {auth['apiKey']}"}
    )
    if not response.ok:
        raise Exception(f"{response.status_code} {response.text}")
    return response.json()
